"""Whatever is done to a certs document: what is used keeps every rule of the keys, and what keeps them is used."""

import json
from copy import deepcopy
from typing import Any

import pytest
from attacks.poison import POISON
from fuzz.target import right_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
from fastapi_cloudflare_access.testing import FakeTeam
from fastapi_cloudflare_access.testing._issuer import compact_json

TEAM = FakeTeam("acme")
DOCUMENT: dict[str, Any] = json.loads(TEAM.certs_body())
NAMES = st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "n", "e", "d", "k", "x5c", "public_certs", "new"])
KINDS: list[Any] = ["RSA", "EC", "sig", "enc", "RS256", "PS256", "none", ["verify"], ["sign"], ["sign", "verify"], []]
MATERIAL: list[Any] = [
    entry[name] for entry in [*DOCUMENT["keys"], *POISON.values()] if isinstance(entry, dict) for name in entry
]
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8)
VALUES = (
    st.sampled_from(KINDS)
    | st.sampled_from(MATERIAL)
    | st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner), max_leaves=4)
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Drop, retype, exchange and nest members, and repeat, mix and replace keys."""
    document = deepcopy(DOCUMENT)
    keys: list[Any] = document["keys"]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(keys) - 1))
        entry = keys[place]
        change = draw(st.sampled_from(["drop", "set", "set", "set", "move", "repeat", "replace", "nest"]))
        if change == "repeat":
            keys.insert(draw(st.integers(0, len(keys))), deepcopy(entry))
        elif change == "replace":
            keys[place] = deepcopy(draw(VALUES | st.sampled_from([*POISON.values()])))  # it may be changed next
        elif change == "nest":
            keys[place] = draw(st.sampled_from([[entry], {"keys": [entry]}, {"jwk": entry}]))
        elif isinstance(entry, dict):
            changed(draw, change, keys, entry)
    document |= draw(st.dictionaries(st.sampled_from(["public_cert", "public_certs", "new"]), VALUES, max_size=1))
    return document


def changed(draw: st.DrawFn, change: str, keys: list[Any], entry: dict[str, Any]) -> None:
    name = draw(NAMES)
    others = [other[name] for other in keys if isinstance(other, dict) and name in other]
    if change == "drop" or (change == "move" and not others):
        entry.pop(name, None)
    else:
        entry[name] = draw(st.sampled_from(others) if change == "move" else VALUES)


@pytest.mark.conformance(14, 15, 16, 17)
@given(documents())
@settings(deadline=None, max_examples=400)
def test_exactly_the_keys_of_a_document_that_keep_every_rule_are_used(document: dict[str, Any]) -> None:
    expected = right_keys(document)
    try:
        found = parse_jwks(compact_json(document)).keys
    except JwksProblem:
        assert expected == {}
    else:
        assert {kid: key._material for kid, key in found.items()} == expected


@pytest.mark.conformance(19)
@given(documents(), st.data())
@settings(deadline=None, max_examples=200)
def test_a_document_that_is_torn_raises_no_other_error(document: dict[str, Any], data: st.DataObject) -> None:
    torn = bytearray(compact_json(document))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(torn)))
        length = data.draw(st.integers(0, 8) | st.integers(0, 1000))
        torn[at : at + length] = data.draw(st.binary(max_size=6) | st.sampled_from([b"[" * 400, b'"keys":[],', b"NaN"]))
    try:
        found = parse_jwks(bytes(torn)).keys
    except JwksProblem:
        return
    assert {kid: key._material for kid, key in found.items()} == right_keys(json.loads(torn))
