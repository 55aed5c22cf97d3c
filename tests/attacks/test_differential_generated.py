"""Thousands of generated tokens through this package, PyJWT and joserfc: what is accepted here is accepted there.

The other way round there are differences, and each is of a class that the page of differences explains.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt
from joserfc.jws import JWSRegistry

from fastapi_cloudflare_access._keys.jwks import parse_jwks
from fastapi_cloudflare_access._verification import token as _token
from fastapi_cloudflare_access.errors import CredentialError
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

TEAM = FakeTeam("acme")
NOW = int(TEAM.clock.now())
SETTINGS = Settings.load(team_domain="acme", audience=TEAM.audience, exp_leeway=0, nbf_leeway=0)
KEYS = parse_jwks(TEAM.certs_body()).keys
PYJWT_KEYS = {key["kid"]: jwt.PyJWK(key) for key in TEAM.certs()["keys"]}
JOSERFC_KEYS = joserfc_jwk.KeySet.import_key_set({"keys": TEAM.certs()["keys"]})
LENIENT = JWSRegistry(algorithms=["RS256"], strict_check_header=False)
"""Members of the header that no standard names are allowed, as RFC 7515 section 4 has it."""
MAX_FETCHES_PER_REQUEST = 3000

PAGE = Path(__file__).parents[2] / "docs/reference/differences.md"
ROW = re.compile(r"^\| (the .+?) \| (yes)? ?\| (yes)? ?\| `(\w+)` \| (.+) \|$", re.MULTILINE)
ACCEPTED = ("accepted", "")

Change = Callable[[random.Random, dict[str, Any], dict[str, Any]], None]


def of_claims(chance: random.Random, header: dict[str, Any], claims: dict[str, Any]) -> None:
    name = chance.choice([*claims, "nbf", "common_name", "x"])
    values: list[Any] = [NOW - 1, NOW, NOW + 1, NOW + 60, str(NOW + 60), NOW + 60.5, None, True, "", "app", "org", []]
    values += [[TEAM.audience], TEAM.audience, ["x", TEAM.audience], [TEAM.audience, 5], TEAM.issuer, "ada", {}]
    claims[name] = chance.choice(values)


def of_missing_claims(chance: random.Random, header: dict[str, Any], claims: dict[str, Any]) -> None:
    claims.pop(chance.choice([*claims]), None)


def of_header(chance: random.Random, header: dict[str, Any], claims: dict[str, Any]) -> None:
    name = chance.choice(["alg", "typ", "kid", "crit", "b64", "cty", "jku", "x5t", "x"])
    header[name] = chance.choice(["RS256", "none", "HS256", "JWT", "jwt", "at+jwt", ["exp"], TEAM.current.kid, None, 1])


def of_nobody(chance: random.Random, header: dict[str, Any], claims: dict[str, Any]) -> None:
    claims["sub"] = claims["common_name"] = ""


def of_nothing(chance: random.Random, header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Leave it as it is."""


def generated(chance: random.Random) -> str:
    header: dict[str, Any] = {"alg": "RS256", "kid": TEAM.current.kid}
    service = chance.random() < 0.3
    claims = TEAM.service_claims("bot") if service else TEAM.user_claims("ada@example.com")
    changes: list[Change] = [of_nothing, of_nothing, of_claims, of_claims, of_missing_claims, of_header, of_nobody]
    for _ in range(chance.randint(1, 2)):
        chance.choice(changes)(chance, header, claims)
    text = ".".join(base64url(json_of(chance, part)) for part in (header, claims))
    return spoilt(chance, f"{text}.{base64url(TEAM.current.sign(text.encode()))}")


def json_of(chance: random.Random, value: dict[str, Any]) -> bytes:
    right = compact_json(value)
    if chance.random() > 0.1:
        return right
    return chance.choice(
        [right + b" ", right[:-1] + b',"x":1,"x":2}', b"\xef\xbb\xbf" + right, right[:-1], b" " + right]
    )


def spoilt(chance: random.Random, token: str) -> str:
    if chance.random() > 0.2:
        return token
    at = chance.randrange(len(token))
    other = chance.choice("AQgwz09-_.= +/")
    return chance.choice([token[:at] + other + token[at + 1 :], token[:at] + other + token[at:], token + other])


def here(token: str) -> tuple[str, str]:
    """Give the reason code and what is said of the token, which names the class of what is wrong."""
    try:
        parsed = _token.parse(token.encode())
        if parsed.kid not in KEYS:
            return "unknown_key", "the key is not known"
        _token.verify(parsed, key=KEYS[parsed.kid], settings=SETTINGS, now=NOW)
    except CredentialError as refusal:
        return refusal.reason, str(refusal)
    return ACCEPTED


def by_pyjwt(token: str) -> bool:
    """As Cloudflare's documentation shows it, at another time and without leeway."""
    try:
        kid = jwt.get_unverified_header(token)["kid"]
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
        decoded = jwt.decode(
            token, PYJWT_KEYS[kid], algorithms=["RS256"], audience=TEAM.audience, issuer=TEAM.issuer, options=options
        )
        return in_time(decoded)
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        return False


def by_joserfc(token: str) -> bool:
    try:
        decoded = joserfc_jwt.decode(token, JOSERFC_KEYS, registry=LENIENT)
        rules = joserfc_jwt.JWTClaimsRegistry(
            now=lambda: NOW,
            iss={"essential": True, "value": TEAM.issuer},
            aud={"essential": True, "value": TEAM.audience},
        )
        rules.validate(decoded.claims)
    except Exception:  # noqa: BLE001 - whatever it raises, it does not accept
        return False
    return True


def in_time(claims: dict[str, Any]) -> bool:
    """PyJWT takes the time from the machine, so its three rules are written here, as loosely as it has them."""
    return (
        int(claims.get("exp", NOW + 1)) > NOW
        and int(claims.get("nbf", NOW)) <= NOW
        and int(claims.get("iat", NOW)) <= NOW
    )


@pytest.fixture(scope="module")
def seen() -> Counter[tuple[tuple[str, str], bool, bool]]:
    """What this package, PyJWT and joserfc said, and of how many tokens."""
    found: Counter[tuple[tuple[str, str], bool, bool]] = Counter()
    chance = random.Random(0)
    for _ in range(MAX_FETCHES_PER_REQUEST):
        token = generated(chance)
        verdict = here(token), by_pyjwt(token), by_joserfc(token)
        found[verdict] += 1
    return found


@pytest.mark.conformance(25, 29, 30, 31, 32, 33)
def test_what_is_accepted_here_is_accepted_by_others(seen: Counter[Any]) -> None:
    assert [verdict for verdict in seen if verdict[0] == ACCEPTED] == [(ACCEPTED, True, True)]
    assert seen[ACCEPTED, True, True] > MAX_FETCHES_PER_REQUEST // 30


def test_each_class_of_what_others_accept_and_this_package_refuses_is_explained_on_the_page(seen: Counter[Any]) -> None:
    by_class: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for mine, *others in seen:
        if mine != ACCEPTED and any(others):
            by_class.setdefault(mine, []).append((others[0], others[1]))
    found = {said: (reason, *map(any, zip(*others, strict=True))) for (reason, said), others in by_class.items()}
    rows = ROW.findall(PAGE.read_text())
    assert found == {said: (reason, bool(pyjwt), bool(joserfc)) for said, pyjwt, joserfc, reason, _ in rows}
    assert [said for said, *_, why in rows if len(why.split()) < 4] == []
