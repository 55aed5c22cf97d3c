"""The configuration accepts valid values and rejects others with the reason."""

from typing import Any

import pytest
from pydantic import ValidationError

from fastapi_cloudflare_access.local.config import App, Config, Origin, Person, Policy, ServiceToken, Team, is_email


def test_the_default_configuration_has_an_app_two_users_and_a_service_token() -> None:
    config = Config()
    assert (len(config.apps), len(config.people), len(config.service_tokens)) == (1, 2, 1)
    assert config.hosts == ("localhost",)


def test_an_aud_tag_is_64_hexadecimal_digits_derived_from_the_name() -> None:
    assert App(name="a").tag == App(name="a", host="b.localhost").tag != App(name="b").tag
    assert len(App(name="a").tag) == 64
    assert App(name="a", audience="given").tag == "given"


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86_400), ("30m", 1800), ("90", 90), (5, 5), ("2 d", 172_800), ("1s", 1)]
)
def test_durations_are_numbers_with_units(text: Any, seconds: int) -> None:
    assert Team(session=text).session == seconds


@pytest.mark.parametrize("text", ["", "0", "31d", "h", "-1", True, None, 1.5])
def test_other_durations_are_rejected(text: Any) -> None:
    with pytest.raises(ValidationError, match="must be a time"):
        Team(session=text)


@pytest.mark.parametrize("text", ["a@b", "o'brien", "a b@c.d", "a@b@c", "@x", "a@", "a@" + "x" * 260, 'a"<x>@b.c', ""])
def test_an_email_address_has_a_limited_length_and_no_special_characters(text: str) -> None:
    assert is_email(text) is (text == "a@b")


def test_an_email_address_can_be_encoded() -> None:
    assert not is_email("\ud800@example.com")


def test_a_user_is_found_by_the_address_in_lower_case() -> None:
    config = Config(people=(Person(email="Ada@Example.com", groups=("x",)),))
    assert config.person("ada@example.com").groups == ("x",)
    assert config.person("bob@example.com").groups == ()


MACHINE = ServiceToken(name="a", client_id="0" * 32 + ".access")
NAMED = Team(domain="acme.cloudflareaccess.com")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Person(email="nobody"), "must be an email"),
        (lambda: App(name="a", host="LOCALHOST"), "must be a host name"),
        (lambda: App(name="a", paths=("x",)), "must be a path"),
        (lambda: App(name="a", audience="a,b"), "is not a valid AUD tag"),
        (lambda: Team(domain="evil.com"), "must be a team domain"),
        (Policy, "includes no caller"),
        (lambda: Policy(decision="bypass", emails=("a@b",)), "needs everyone = true and nothing else"),
        (lambda: Policy(decision="service_auth", emails=("a@b",)), "not users"),
        (lambda: Policy(service_tokens=("a",)), "need decision = 'service_auth'"),
        (lambda: Config(apps=(App(name="a"), App(name="a", host="b.localhost"))), "appears twice"),
        (lambda: Config(apps=(App(name="a"), App(name="b"))), "belong to two apps"),
        (lambda: Config(people=(Person(email="a@b"), Person(email="A@b"))), "appears twice"),
        (lambda: Config(service_tokens=(ServiceToken(name="a"), ServiceToken(name="a"))), "appears twice"),
        (lambda: Config(service_tokens=(MACHINE, MACHINE.model_copy(update={"name": "b"}))), "appears twice"),
        (lambda: Config(apps=(App(name="a", host="127.0.0.1"),)), "is the host of the team"),
        (lambda: Config(team=NAMED, apps=(App(name="a", host=str(NAMED.domain)),)), "is the host of the team"),
        (
            lambda: Config(apps=(App(name="a", policies=(Policy(decision="service_auth", service_tokens=("x",)),)),)),
            "no service token has the name 'x'",
        ),
    ],
    ids=[str(number) for number in range(17)],
)
def test_an_invalid_value_is_rejected_with_the_reason(make: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


@pytest.mark.parametrize(
    "path", ["/x/*", "/a%20b", "/sec//ret", "//a", "/a/..", "/./a", "/a?b", "/a#b", "/a b", "/a\\b", ""]
)
def test_a_path_that_no_request_can_have_is_rejected(path: str) -> None:
    with pytest.raises(ValidationError, match="must be a path such as '/admin'"):
        App(name="a", paths=(path,))


@pytest.mark.parametrize(
    ("path", "kept"), [("/", "/"), ("/a/", "/a"), ("/.well-known/x", "/.well-known/x"), ("/ü", "/ü")]
)
def test_a_path_is_normalized_as_request_paths_are(path: str, kept: str) -> None:
    assert App(name="a", paths=(path,)).paths == (kept,)


def test_a_trailing_slash_does_not_make_another_path() -> None:
    with pytest.raises(ValidationError, match="belong to two apps"):
        Config(apps=(App(name="a", paths=("/x",)), App(name="b", paths=("/x/",))))


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://127.0.0.1:8000/", Origin("http", "127.0.0.1", 8000)),
        ("https://my_app.test", Origin("https", "my_app.test", 443)),
        ("http://[::1]", Origin("http", "::1", 80)),
        ("http://[::1]:9", Origin("http", "::1", 9)),
    ],
)
def test_an_upstream_is_a_scheme_a_host_and_a_port(text: str, origin: Origin) -> None:
    assert Origin.parse(text) == origin
    assert Origin.parse(str(App(name="a", upstream=text).upstream)) == origin


NO_ORIGINS = ("http://", "http://:", "http://:80", "http://::1:80", "http://a:0", "http://a:99999", "http://a:8000/api")


@pytest.mark.parametrize("text", [*NO_ORIGINS, "http://a?b", "http://b@a", "ftp://a", "a:80", ""])
def test_an_upstream_that_is_not_an_origin_is_rejected(text: str) -> None:
    with pytest.raises(ValidationError, match="must be an origin, such as"):
        App(name="a", upstream=text)


TAKEN = ("Host", "cookie", "Connection", "content-length", "Transfer-Encoding", "Cf-Access-Token", "Sec-WebSocket-Key")


@pytest.mark.parametrize("name", [*TAKEN, "a b", "", "x" * 65])
def test_service_credentials_cannot_use_a_header_with_another_use(name: str) -> None:
    with pytest.raises(ValidationError, match="name of a header without another use"):
        App(name="a", service_token_header=name)


def test_service_credentials_can_use_any_other_header() -> None:
    for name in ("Authorization", "X-Host", "hostess"):
        assert App(name="a", service_token_header=name).service_token_header == name


def test_an_error_does_not_contain_the_client_secret() -> None:
    with pytest.raises(ValidationError) as refused:
        ServiceToken(name="a", client_secret="hunter2" * 100)
    assert "hunter2" not in str(refused.value)
