"""Cloudflare's documented verification, in Python, JavaScript and Go, against this package: same tokens, same certs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.differential import Verdicts, build_go, go_oidc, install_jose, jose, ours, pyjwt

from fastapi_cloudflare_access.testing import FORGERIES, CertsServer, FakeTeam, SystemClock

PAGE = Path(__file__).parents[2] / "docs/reference/differences.md"
ABSENT = object()
Tokens = dict[str, str]
Team = FakeTeam[SystemClock]


@pytest.fixture(scope="module")
def team() -> Team:
    return FakeTeam("acme", clock=SystemClock())


@pytest.fixture(scope="module")
def certs(team: Team) -> Iterator[CertsServer]:
    with CertsServer(team) as certs:
        yield certs


@pytest.fixture(scope="module")
def changed(team: Team, certs: CertsServer) -> tuple[Tokens, Verdicts]:
    """A thousand tokens with one odd value each, and what this package says of them."""
    tokens = mutated(team)
    return tokens, ours(certs, tokens)


@pytest.fixture(scope="module")
def node_modules(request: pytest.FixtureRequest) -> Path:
    """The JavaScript, installed once into pytest's cache."""
    assert request.config.cache is not None
    installed = install_jose(request.config.cache.mkdir("jose"))
    if isinstance(installed, str):
        pytest.skip(f"the JavaScript is not compared: {installed}")
    return installed


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> Path:
    """The Go, built once into pytest's cache."""
    assert request.config.cache is not None
    built = build_go(request.config.cache.mkdir("go"))
    if isinstance(built, str):
        pytest.skip(f"the Go is not compared: {built}")
    return built


# the tokens


def named(team: Team) -> Tokens:
    """One token of each kind that can be told apart: all forgeries, and what only matters here."""
    user, service = team.user_claims("ada@example.com"), team.service_claims("deploy-bot")
    return {name: team.forge(name) for name in FORGERIES} | {
        "meta_complete": team.sign({**user, "type": "meta"}),
        "service_without_type": team.sign({name: value for name, value in service.items() if name != "type"}),
        "service_without_name": team.sign({**service, "common_name": ""}),
        "jti_number": team.sign({**user, "jti": 5}),
    }


def good(team: Team) -> Tokens:
    """What Access issues, and what it might."""
    user, service = team.user_claims("ada@example.com"), team.service_claims("deploy-bot")
    options: dict[str, Any] = {"groups": ["a", {"id": 5}], "custom": {"level": 5.5, "größe": None, "deep": [[[1]]]}}
    return {
        "user": team.user_token("ada@example.com"),
        "user with claims of her own": team.user_token("ada@example.com", **options),
        "user of several audiences": team.sign({**user, "aud": ["other", team.audience]}),
        "user with text as audience": team.sign({**user, "aud": team.audience}),
        "user without nbf": team.sign({name: value for name, value in user.items() if name != "nbf"}),
        "user with typ": team.sign(user, header={"typ": "JWT", "alg": "RS256", "kid": team.current.kid}),
        "user with a large custom claim": team.user_token("ada@example.com", custom={"note": "x" * 4000}),
        "user signed by the previous key": team.user_token("ada@example.com", key=team.previous),
        "user with an expiry far away": team.user_token("ada@example.com", expires_in=10**9),
        "service": team.service_token("deploy-bot"),
        "service with a list as audience": team.sign({**service, "aud": [team.audience]}),
        "service with nbf": team.sign({**service, "nbf": service["iat"]}),
        "service signed by the previous key": team.service_token("deploy-bot", key=team.previous),
    }


CLAIMS = ("type", "iss", "aud", "exp", "iat", "nbf", "sub", "email", "common_name", "custom", "jti", "policy_id", "new")
PARAMETERS = ("alg", "kid", "typ", "crit", "b64", "cty", "zip", "enc", "jku", "x5c", "nonce", "new")


def mutated(team: Team) -> Tokens:
    """Each claim and each header parameter in turn with each odd value, signed by the right key."""
    now, tag = int(team.clock.now()), team.audience
    values = [
        ABSENT,
        None,
        True,
        False,
        0,
        1,
        -1,
        now - 100,
        now + 100,
        now + 100.5,
        10**12,
        1e300,
        "",
        "5",
        "app",
        "ü",
    ]
    values += [tag, [tag], [tag, "x"], [tag, 5], [], {}, {"a": [1]}, team.issuer, str(now + 100)]
    values += ["JWT", "jwt", "application/jwt", "RS256", "none", team.keys[0].kid, ["b64"], ["RS256"]]
    user, service = team.user_claims("ada@example.com"), team.service_claims("deploy-bot")
    header = {"alg": "RS256", "kid": team.current.kid}
    return {
        **{f"user {what}": team.sign(claims) for what, claims in _mutations(user, CLAIMS, values)},
        **{f"service {what}": team.sign(claims) for what, claims in _mutations(service, CLAIMS, values)},
        **{f"header {what}": team.sign(user, header=odd) for what, odd in _mutations(header, PARAMETERS, values)},
    }


def _mutations(
    members: dict[str, Any], names: tuple[str, ...], values: list[Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        for value in values:
            changed = {other: member for other, member in members.items() if other != name}
            if value is ABSENT:
                yield f"without {name}", changed
            else:
                yield f"{name}={value!r}", {**changed, name: value}


# what they are compared by


def accepted(verdicts: Verdicts) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict == "accepted"}


def written(column: int) -> dict[str, str]:
    """A column of the page's table, by the name of the token."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {name: cells.split("|")[column].strip() for name, cells in rows}


def difference(mine: Verdicts, theirs: Verdicts) -> set[str]:
    return accepted(theirs) - accepted(mine)


# the claims


def test_what_access_issues_is_accepted_by_this_package_and_the_documented_python(
    team: Team, certs: CertsServer
) -> None:
    tokens = good(team)
    assert accepted(ours(certs, tokens)) == accepted(pyjwt(certs, tokens)) == set(tokens)


def test_what_access_issues_is_accepted_by_the_documented_javascript(
    team: Team, certs: CertsServer, node_modules: Path
) -> None:
    tokens = good(team)
    assert accepted(jose(certs, tokens, node_modules)) == set(tokens)


def test_what_access_issues_is_accepted_by_the_documented_go(team: Team, certs: CertsServer, program: Path) -> None:
    tokens = good(team)
    assert accepted(go_oidc(certs, tokens, program)) == set(tokens)


def test_whatever_this_package_accepts_the_documented_python_accepts(
    certs: CertsServer, changed: tuple[Tokens, Verdicts]
) -> None:
    tokens, verdicts = changed
    mine = accepted(verdicts)
    assert len(mine) > len(tokens) / 5
    assert mine - accepted(pyjwt(certs, tokens)) == set()


def test_whatever_this_package_accepts_the_documented_javascript_accepts(
    certs: CertsServer, changed: tuple[Tokens, Verdicts], node_modules: Path
) -> None:
    tokens, mine = changed
    assert accepted(mine) - accepted(jose(certs, tokens, node_modules)) == set()


def test_whatever_this_package_accepts_the_documented_go_accepts_but_a_nonce_that_is_no_text(
    certs: CertsServer, changed: tuple[Tokens, Verdicts], program: Path
) -> None:
    tokens, mine = changed
    theirs = go_oidc(certs, tokens, program)
    refused = {name: theirs[name] for name in accepted(mine) - accepted(theirs)}
    assert [name for name, why in refused.items() if "failed to unmarshal nonce" not in why] == []
    assert {name.partition("=")[0] for name in refused} == {"header nonce"}
    assert "`nonce` is not text" in PAGE.read_text()


def test_what_the_documented_python_accepts_and_this_package_refuses_is_what_the_page_says(
    team: Team, certs: CertsServer
) -> None:
    tokens = named(team)
    expected = {name for name, cell in written(0).items() if cell == "yes"}
    assert difference(ours(certs, tokens), pyjwt(certs, tokens)) == expected


def test_what_the_documented_javascript_accepts_and_this_package_refuses_is_what_the_page_says(
    team: Team, certs: CertsServer, node_modules: Path
) -> None:
    tokens = named(team)
    expected = {name for name, cell in written(1).items() if cell == "yes"}
    assert difference(ours(certs, tokens), jose(certs, tokens, node_modules)) == expected


def test_what_the_documented_go_accepts_and_this_package_refuses_is_what_the_page_says(
    team: Team, certs: CertsServer, program: Path
) -> None:
    tokens = named(team)
    expected = {name for name, cell in written(2).items() if cell == "yes"}
    assert difference(ours(certs, tokens), go_oidc(certs, tokens, program)) == expected


def test_the_page_names_the_reason_code_and_why_for_each_of_its_tokens(team: Team, certs: CertsServer) -> None:
    tokens = {name: token for name, token in named(team).items() if name in written(0)}
    assert {name: f"`{reason}`" for name, reason in ours(certs, tokens).items()} == written(3)
    assert [name for name, why in written(4).items() if len(why.split()) < 2] == []
    assert [name for name in tokens if "yes" not in {written(column)[name] for column in range(3)}] == []


def test_with_its_leeway_this_package_accepts_a_little_longer_and_a_little_earlier(
    team: Team, certs: CertsServer
) -> None:
    """The one way in which it accepts more: its default leeway, which the page names."""
    now = int(team.clock.now())
    claims = team.user_claims("ada@example.com")
    tokens = {
        "just expired": team.sign({**claims, "exp": now - 5}),
        "just ahead": team.sign({**claims, "nbf": now + 20}),
    }
    assert accepted(ours(certs, tokens, exp_leeway=10, nbf_leeway=30)) == set(tokens)
    assert accepted(ours(certs, tokens)) == accepted(pyjwt(certs, tokens)) == set()
    assert "10 s on `exp` and 30 s on `nbf` and `iat`" in PAGE.read_text()


def test_the_documented_go_accepts_a_token_a_minute_early(team: Team, certs: CertsServer, program: Path) -> None:
    now, claims = int(team.clock.now()), team.user_claims("ada@example.com")
    tokens = {f"{ahead} s ahead": team.sign({**claims, "nbf": now + ahead}) for ahead in (40, 100)}
    assert accepted(go_oidc(certs, tokens, program)) == {"40 s ahead"}
    assert "`go-oidc` has a minute on `nbf`" in PAGE.read_text()
