"""Whatever the claims are: accepted implies every rule, and refused is refused in the one way."""

import json
from typing import Any

import pytest
from fuzz.target import NOW, right
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cloudflare_access._verification.token import ParsedToken, precheck, verify
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import CredentialError
from fastapi_cloudflare_access.settings import Settings

SETTINGS = Settings.load(team_domain="acme", audience="tag")
USER: dict[str, Any] = {"type": "app", "iss": SETTINGS.issuer, "aud": ["tag"], "sub": "u", "exp": NOW + 60, "iat": NOW}
SERVICE: dict[str, Any] = USER | {"sub": "", "aud": "tag", "common_name": "x.access"}
TIMES = st.sampled_from([NOW + offset for offset in (-3600, -11, -10, -9, 0, 29, 30, 31, 3600)])
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
NEAR = st.sampled_from(["app", "org", SETTINGS.issuer, "tag", "", ["tag"], ["x", "tag"], [], "u", "x.access"])
NAMES = st.sampled_from(["type", "iss", "aud", "sub", "exp", "iat", "nbf", "common_name", "email", "custom", "x"])


class Yes:
    def verifies(self, signature: bytes, signing_input: bytes) -> bool:
        return True


def outcome(parsed: ParsedToken) -> tuple[dict[str, Any], CredentialError | None]:
    try:
        return verify(parsed, key=Yes(), settings=SETTINGS, now=NOW), None
    except CredentialError as refusal:
        return {}, refusal


@pytest.mark.conformance(25, 28, 29, 30, 31, 32, 33, 35, 36)
@given(
    st.sampled_from([USER, SERVICE]),
    st.dictionaries(NAMES, TIMES | NEAR | VALUES, max_size=3),
    st.sets(NAMES, max_size=1),
)
@settings(deadline=None, max_examples=500)
def test_accepted_claims_keep_every_rule_and_the_screen_agrees(
    base: dict[str, Any], change: dict[str, Any], gone: set[str]
) -> None:
    claims = {name: value for name, value in {**base, **change}.items() if name not in gone}
    try:
        payload = json.dumps(claims, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    parsed = ParsedToken("kid", b"", payload, b"")
    accepted, refusal = outcome(parsed)
    if refusal is not None:
        with pytest.raises(type(refusal)) as screened:
            precheck(parsed, settings=SETTINGS, now=NOW)
        assert type(screened.value) is type(refusal)
        assert (refusal.unverified, screened.value.unverified) == (False, True)
        return
    precheck(parsed, settings=SETTINGS, now=NOW)
    right(json.loads(payload), accepted)


@pytest.mark.conformance(36)
@given(st.sampled_from([USER, SERVICE]), st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
@settings(deadline=None, max_examples=200)
def test_unknown_claims_change_neither_the_kind_of_caller_nor_who_it_is(
    base: dict[str, Any], unknown: dict[str, Any]
) -> None:
    claims = {**{name: value for name, value in unknown.items() if name not in UserClaims.model_fields}, **base}
    kind = UserClaims if base["sub"] else ServiceClaims
    caller = kind.model_validate({**claims, "aud": ("tag",)})
    assert caller.principal == (SETTINGS.issuer, base["sub"] or base["common_name"])
