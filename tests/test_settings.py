"""Settings: everything is checked at construction."""

import math
from inspect import signature
from typing import Any

import pytest
from pydantic import BaseModel
from support.options import grouped

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.settings import KeySettings, LeftOut, Settings

AUD = "32eafc7626e737acab8500d41a2fcc41b3b9d1c6b3f1a3e1f1d1c1b1a1918171"


def load(**options: Any) -> Settings:
    return Settings.load(**grouped({"team_domain": "acme", "audience": AUD, **options}))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CF_ACCESS_TEAM_DOMAIN", "CF_ACCESS_AUDIENCE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.conformance(13, 18)
@pytest.mark.parametrize(
    ("team_domain", "issuer"),
    [
        ("acme", "https://acme.cloudflareaccess.com"),
        (" acme", "https://acme.cloudflareaccess.com"),
        ("acme \r\n", "https://acme.cloudflareaccess.com"),
        ("acme.cloudflareaccess.com/", "https://acme.cloudflareaccess.com"),
        (" https://acme.cloudflareaccess.com/ ", "https://acme.cloudflareaccess.com"),
        ("http://127.0.0.1:8788/", "http://127.0.0.1:8788"),
        ("a", "https://a.cloudflareaccess.com"),
        ("my-team-2", "https://my-team-2.cloudflareaccess.com"),
        ("a" * 63, f"https://{'a' * 63}.cloudflareaccess.com"),
        ("acme.cloudflareaccess.com", "https://acme.cloudflareaccess.com"),
        ("https://acme.cloudflareaccess.com", "https://acme.cloudflareaccess.com"),
        ("acme.fed.cloudflareaccess.com", "https://acme.fed.cloudflareaccess.com"),
        ("https://acme.fed.cloudflareaccess.com", "https://acme.fed.cloudflareaccess.com"),
        ("http://127.0.0.1:8788", "http://127.0.0.1:8788"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://[::1]:65535", "http://[::1]:65535"),
    ],
)
def test_the_issuer_and_the_certs_url_derive_from_the_team_domain(team_domain: str, issuer: str) -> None:
    settings = load(team_domain=team_domain)
    assert settings.issuer == issuer
    assert settings.certs_url == f"{issuer}/cdn-cgi/access/certs"
    assert settings.is_local == issuer.startswith("http://")


@pytest.mark.conformance(18, 20, 57)
@pytest.mark.parametrize(
    "team_domain",
    [
        "",
        " ",
        "\t\n",
        None,
        5,
        b"acme",
        ["acme"],
        "Acme",
        "acme\x00",
        "-acme",
        "acme-",
        "a" * 64,
        "a_b",
        "acme.",
        "evil.com",
        "evil.com#",
        "evil.com/",
        "evil.com?",
        "@evil.com/",
        "acme@evil.com",
        "1.1.1.1:80/",
        "acme.cloudflareaccess.com.evil.com",
        "evil.com/.cloudflareaccess.com",
        "evil.com#.cloudflareaccess.com",
        "evilcloudflareaccess.com",
        "a.b.cloudflareaccess.com",
        "acme.fed.fed.cloudflareaccess.com",
        "acme.cloudflareaccess.com:443",
        "acme.cloudflareaccess.com//",
        "a cme",
        "https://acme.cloudflareaccess.com/cdn-cgi/access/certs",
        "https://acme.cloudflareaccess.com#",
        "https://acme.cloudflareaccess.com?x",
        "https://user@acme.cloudflareaccess.com",
        "http://acme.cloudflareaccess.com",
        "//acme.cloudflareaccess.com",
        "acmе",  # noqa: RUF001 - a Cyrillic e
        "ａｃｍｅ",  # noqa: RUF001 - full-width letters
        "acme．cloudflareaccess.com",  # noqa: RUF001 - a full-width full stop
        "acme.cloudflareaccess.cοm",  # noqa: RUF001 - a Greek omicron
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:080",
        "http://127.0.0.2:80",
        "http://localhost.evil.com:80",
        "http://localhost:80@evil.com",
        "https://localhost:80",
        "http://0.0.0.0:80",
        "http://10.0.0.1:80",
        "http://[::]:80",
        "http://[::1%25eth0]:80",
        "http://evil.com:80",
    ],
)
def test_any_other_team_domain_is_refused_with_a_sentence_that_names_it(team_domain: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^team_domain (must|is|has|contains|ends|begins) [^\n]+$"):
        load(team_domain=team_domain)


@pytest.mark.parametrize(
    ("audience", "tags"),
    [
        (AUD, (AUD,)),
        (f" {AUD} ", (AUD,)),
        ("a,b", ("a", "b")),
        ("a, b , a", ("a", "b")),
        (["a", "b"], ("a", "b")),
        (("a", "b"), ("a", "b")),
        (frozenset({"a"}), ("a",)),
    ],
)
def test_one_or_several_audiences_are_taken(audience: Any, tags: tuple[str, ...]) -> None:
    settings = load(audience=audience)
    assert settings.audience == tags
    assert settings.audience_tags == set(tags)


@pytest.mark.conformance(30, 57)
@pytest.mark.parametrize(
    "audience",
    [
        None,
        "",
        " ",
        ",",
        "a,",
        "a,,b",
        [],
        (),
        set(),
        [""],
        ["a", ""],
        '["a"]',
        '"a"',
        "<aud>",
        "https://app.example.com",
        ["a", " "],
        ["a", None],
        [5],
        [["a"]],
        5,
        {"a": 1},
        "a b",
        "ä",
        "a\nb",
        "a" * 257,
    ],
)
def test_no_audience_or_a_blank_one_is_refused(audience: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^audience (must|is|has) [^\n]+$"):
        load(audience=audience)


def test_both_come_from_the_environment_where_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", "acme")
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", "a,b")
    settings = Settings.load()
    assert (settings.issuer, settings.audience) == ("https://acme.cloudflareaccess.com", ("a", "b"))


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", "other")
    assert load().issuer == "https://acme.cloudflareaccess.com"


def test_none_does_not_fall_back_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", "acme")
    with pytest.raises(ConfigurationError, match="leave it out to read CF_ACCESS_TEAM_DOMAIN"):
        load(team_domain=None)


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_REFRESH_INTERVAL", "120")
    monkeypatch.setenv("CF_ACCESS_TOKEN_SOURCES", "cookie,header")
    monkeypatch.setenv("CF_ACCESS_FAIL_FAST", "true")
    settings = load()
    keys = settings.key_settings
    assert (keys.refresh_interval, settings.token_sources, keys.fail_fast) == (120, ("header", "cookie"), True)


@pytest.mark.parametrize("name", ["TEAM_DOMAIN", "AUDIENCE"])
def test_a_blank_environment_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", "acme")
    monkeypatch.setenv("CF_ACCESS_AUDIENCE", AUD)
    monkeypatch.setenv(f"CF_ACCESS_{name}", " ")
    with pytest.raises(ConfigurationError, match=f"^CF_ACCESS_{name} is "):
        Settings.load()


def test_what_is_missing_is_said_with_what_to_set() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert str(caught.value) == (
        "team_domain is missing: pass team_domain=… or set CF_ACCESS_TEAM_DOMAIN; "
        "audience is missing: pass audience=… or set CF_ACCESS_AUDIENCE"
    )


def test_an_unknown_setting_is_refused_with_the_closest_one_or_where_they_are_listed() -> None:
    with pytest.raises(ConfigurationError, match=r"^there is no setting teamdomain; did you mean team_domain\?$"):
        load(teamdomain="acme")
    with pytest.raises(
        ConfigurationError, match=r"^there is no setting x; help\(CloudflareAccess\) lists the settings$"
    ):
        load(x="acme")


@pytest.mark.parametrize("name", ["_env_file", "_env_prefix", "_cli_parse_args", "Team_Domain"])
def test_only_settings_can_be_set(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^there is no setting {name}"):
        load(team_domain="acme", audience=AUD, **{name: "x"})


NUMBERS = sorted(
    name
    for group in (Settings, KeySettings)
    for name, field in group.model_fields.items()
    if field.annotation is int or field.annotation is float
)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, True, False, "x", None, 10**12])
def test_a_number_that_is_none_or_out_of_bounds_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}\b[^\n]+$"):
        load(**{name: value})


def test_a_wrong_value_is_not_repeated_by_the_message() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(team_domain="s3cret.example", audience="s3cret value", auth_scheme="s3cret challenge")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("auth_scheme", ["", " ", "a b", 'a"', "a\r\nSet-Cookie: x", "ä", "a" * 65])
def test_a_challenge_that_is_no_http_token_is_refused(auth_scheme: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^auth_scheme must be one HTTP token"):
        load(auth_scheme=auth_scheme)


@pytest.mark.parametrize("sources", ["", "bearer", (), [], ("header", "query"), None, 5, {"header": 1}])
def test_token_sources_that_do_not_exist_are_refused(sources: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^token_sources must be 'header', 'cookie' or both"):
        load(token_sources=sources)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [("header", ("header",)), (("cookie",), ("cookie",)), (["cookie", "header"], ("header", "cookie"))],
)
def test_token_sources_narrow_where_a_token_is_read_from(sources: Any, expected: tuple[str, ...]) -> None:
    assert load(token_sources=sources).token_sources == expected


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().audience = ("other",)


def test_a_sibling_differs_in_the_audience_alone() -> None:
    settings = load(refresh_interval=120)
    sibling = settings.with_audience(("other",))
    assert sibling.audience == ("other",)
    assert sibling.model_dump(exclude={"audience"}) == settings.model_dump(exclude={"audience"})
    with pytest.raises(ConfigurationError, match="audience"):
        settings.with_audience(())


@pytest.mark.parametrize(("signed", "group"), [(CloudflareAccess, Settings), (KeySettings, KeySettings)])
def test_a_signature_shows_every_setting_with_its_default(signed: Any, group: type[BaseModel]) -> None:
    parameters = signature(signed).parameters
    for name, field in group.model_fields.items():
        default: Any = parameters[name].default
        if isinstance(default, LeftOut):
            assert repr(default) == ("Ellipsis" if field.is_required() else repr(field.default))
        else:
            assert name == "key_settings"


def test_a_setting_of_the_keys_is_refused_beside_them_with_the_place_where_it_goes() -> None:
    with pytest.raises(ConfigurationError, match=r"; write key_settings=KeySettings\(refresh_interval=…\)$"):
        Settings.load(team_domain="acme", audience=AUD, refresh_interval=120)


@pytest.mark.parametrize("wrong", [None, 5, {"refresh_interval": 120}, KeySettings])
def test_key_settings_are_an_object(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^key_settings must be KeySettings\(…\), such as"):
        Settings.load(team_domain="acme", audience=AUD, key_settings=wrong)


def test_key_settings_are_no_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_KEY_SETTINGS", '{"refresh_interval": 60}')
    with pytest.raises(ConfigurationError) as wrong:
        load()
    write = "write key_settings=KeySettings(refresh_interval=300), or set CF_ACCESS_REFRESH_INTERVAL=300"
    assert str(wrong.value) == f"CF_ACCESS_KEY_SETTINGS cannot be text: {write}"
    monkeypatch.delenv("CF_ACCESS_KEY_SETTINGS")
    monkeypatch.setenv("CF_ACCESS_REFRESH_INTERVAL", "300")
    assert load().key_settings == KeySettings(refresh_interval=300)


def test_a_setting_is_given_by_name() -> None:
    with pytest.raises(TypeError):
        KeySettings(600)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def test_the_addresses_of_a_team_are_those_of_cloudflare() -> None:
    settings = Settings.load(team_domain="acme", audience=AUD)
    assert settings.certs_url == "https://acme.cloudflareaccess.com/cdn-cgi/access/certs"
    assert settings.identity_url == "https://acme.cloudflareaccess.com/cdn-cgi/access/get-identity"


def test_a_session_is_checked_again_after_five_seconds_at_the_earliest() -> None:
    shortest = Settings.load(team_domain="acme", audience=AUD, recheck_session=5, recheck_unavailable="deny")
    assert shortest.recheck_session == 5
    with pytest.raises(ConfigurationError, match=r"^recheck_session must be 0 or from 5 seconds$"):
        Settings.load(team_domain="acme", audience=AUD, recheck_session=4.9, recheck_unavailable="deny")


@pytest.mark.parametrize(
    ("team", "former"), [("acme", "http://127.0.0.1:8000"), ("http://127.0.0.1:8000", "globex")], ids=["real", "local"]
)
def test_a_real_team_was_no_local_one_and_a_local_one_no_real_one(team: str, former: str) -> None:
    with pytest.raises(ConfigurationError, match="must not have a loopback origin beside a real team"):
        Settings.load(team_domain=team, audience=AUD, former_team_domains=[former])


@pytest.mark.parametrize("port", [7999, 8001])
def test_a_local_team_of_the_code_and_another_one_of_the_environment_are_noticed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", f"http://127.0.0.1:{port}")
    other, _ = Settings.load(team_domain="http://127.0.0.1:8000", audience=AUD).warnings
    assert other.startswith(
        f"the code sets team_domain to http://127.0.0.1:8000, and the environment names the local "
        f"Access http://127.0.0.1:{port}"
    )


@pytest.mark.parametrize(
    ("team", "hint"),
    [
        ("http://localhost:8000", "; the local Access of this package is the team http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000", ""),
    ],
)
def test_the_host_of_the_local_apps_is_not_that_of_the_local_team(team: str, hint: str) -> None:
    (local,) = Settings.load(team_domain=team, audience=AUD).warnings
    assert local == f"the Cloudflare Access team is a local one at {team}: for development only{hint}"
