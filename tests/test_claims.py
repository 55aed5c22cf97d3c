"""The claims models: typed, frozen, and open to what is not documented."""

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from fastapi_cloudflare_access import ServiceClaims, UserClaims
from fastapi_cloudflare_access.testing import FakeTeam

TEAM = FakeTeam("acme")
ADA = TEAM.user("ada@example.com", custom={"department": "engines", "groups": ["a", {"id": 1}]})
BOT = TEAM.service("deploy-bot")


@pytest.mark.conformance(36, 38)
def test_a_user_has_typed_claims() -> None:
    assert (ADA.email, ADA.country, ADA.type, ADA.aud) == ("ada@example.com", "US", "app", (TEAM.audience,))
    assert ADA.expires_at == datetime.fromtimestamp(ADA.exp, UTC)
    assert ADA.issued_at == datetime.fromtimestamp(ADA.iat, UTC)


@pytest.mark.conformance(36)
def test_a_service_has_typed_claims() -> None:
    assert (BOT.sub, BOT.nbf) == ("", None)
    assert BOT.common_name.endswith(".access")


@pytest.mark.conformance(37)
def test_the_principal_is_what_to_key_records_on() -> None:
    assert ADA.principal == (TEAM.issuer, ADA.sub)
    assert BOT.principal == (TEAM.issuer, BOT.common_name)


@pytest.mark.conformance(39)
def test_unknown_claims_stay_readable() -> None:
    assert ADA.h_INTERNAL_DO_NOT_USE == "app.example.com"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert ADA.model_extra["h_INTERNAL_DO_NOT_USE"] == "app.example.com"


@pytest.mark.conformance(39)
def test_an_unknown_claim_never_stands_before_what_the_model_defines() -> None:
    user = TEAM.user(
        "ada@example.com", claims={"principal": "root", "model_dump": "x", "expires_at": 0, "__class__": "x"}
    )
    assert user.principal == (TEAM.issuer, user.sub)
    assert user.model_dump()["principal"] == "root"
    assert user.model_extra["principal"] == "root"


CHANGES: dict[str, Callable[[Any], object]] = {
    "a claim": lambda user: setattr(user, "sub", "root"),
    "a new claim": lambda user: setattr(user, "admin", True),
    "an unknown claim": lambda user: setattr(user, "h_INTERNAL_DO_NOT_USE", "x"),
    "deleting a claim": lambda user: delattr(user, "sub"),
    "the custom claims": lambda user: user.custom.update(department="x"),
    "a custom claim": lambda user: user.custom.__setitem__("department", "x"),
    "deleting a custom claim": lambda user: user.custom.pop("department"),
    "clearing custom claims": lambda user: user.custom.clear(),
    "merging custom claims": lambda user: user.custom.__ior__({"x": 1}),
    "a list in the custom claims": lambda user: user.custom["groups"].append("admin"),
    "a mapping in a list": lambda user: user.custom["groups"][1].__setitem__("id", 2),
    "the unknown claims": lambda user: user.model_extra.__setitem__("x", 1),
}


@pytest.mark.conformance(39)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_claims_cannot_be_changed(change: Callable[[Any], object]) -> None:
    before = ADA.model_dump_json()
    with pytest.raises((ValidationError, TypeError, AttributeError)):
        change(ADA)
    assert ADA.model_dump_json() == before


@pytest.mark.parametrize(
    "copy_of",
    [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it)), lambda it: it.model_copy(deep=True)],  # noqa: S301
    ids=["copy", "deepcopy", "pickle", "model_copy"],
)
def test_claims_can_be_copied_and_stay_frozen(copy_of: Callable[[Any], Any]) -> None:
    again = copy_of(ADA)
    assert again == ADA
    assert type(again.custom) is type(ADA.custom)
    assert copy.copy(ADA.custom) == ADA.custom


def test_claims_are_hashable_and_equal_where_they_say_the_same() -> None:
    again = TEAM.user("ada@example.com", custom={"department": "engines", "groups": ["a", {"id": 1}]})
    assert again == ADA
    assert hash(ADA.custom) == hash(again.custom)


def test_claims_serialise_to_json() -> None:
    assert json.loads(ADA.model_dump_json())["custom"] == {"department": "engines", "groups": ["a", {"id": 1}]}
    assert ADA.model_dump(mode="json")["custom"]["groups"] == ["a", {"id": 1}]
    read_back = UserClaims.model_validate_json(ADA.model_dump_json())
    assert read_back == ADA.model_copy(update={"identity_nonce": None})


def test_the_key_to_the_identity_is_never_serialised() -> None:
    assert ADA.identity_nonce
    assert "identity_nonce" not in ADA.model_dump()
    assert "identity_nonce" not in dict(ADA)
    assert ADA.identity_nonce not in ADA.model_dump_json()
    assert pickle.loads(pickle.dumps(ADA)).identity_nonce == ADA.identity_nonce  # noqa: S301 - our own


def test_claims_without_custom_claims_have_an_empty_mapping() -> None:
    assert TEAM.user("ada@example.com").custom == {}
    assert UserClaims.model_validate(ADA.model_dump() | {"custom": None}).custom == {}


def test_the_cache_key_of_the_identity_is_not_shown() -> None:
    assert ADA.identity_nonce
    assert ADA.identity_nonce not in repr(ADA)


WRONG: list[tuple[str, Any]] = [
    ("email", 5),
    ("email", ["ada@example.com"]),
    ("country", {"x": 1}),
    ("identity_nonce", 5),
    ("policy_id", True),
    ("exp", "5"),
    ("exp", 5.0),
    ("iat", True),
    ("nbf", "now"),
    ("exp", -1),
    ("exp", 10**12),
    ("sub", ""),
    ("sub", 5),
    ("type", "org"),
    ("aud", ["a", 5]),
    ("custom", [1]),
    ("custom", ""),
    ("custom", 0),
    ("custom", False),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=repr)
def test_nothing_is_coerced_and_nothing_is_repeated(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        UserClaims.model_validate(ADA.model_dump() | {name: value})
    assert "input_value" not in str(caught.value)


@pytest.mark.conformance(36)
@pytest.mark.parametrize(
    ("name", "value"), [("sub", "x"), ("common_name", ""), ("common_name", None), ("common_name", 5)]
)
def test_a_service_has_an_empty_sub_and_a_name(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        ServiceClaims.model_validate(BOT.model_dump() | {name: value})


class Custom(BaseModel):
    model_config = ConfigDict(frozen=True)
    department: str
    groups: list[Any]


class MyClaims(UserClaims):
    custom: Custom


def test_a_subclass_gives_custom_claims_a_type() -> None:
    mine = MyClaims.model_validate(ADA.model_dump(mode="json"))
    assert mine.custom == Custom(department="engines", groups=["a", {"id": 1}])
    with pytest.raises(ValidationError):
        MyClaims.model_validate(TEAM.user("bob@example.com").model_dump())
