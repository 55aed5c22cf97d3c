"""The models of an identity: no attribute can be replaced, errors show no values, and each field is described."""

from typing import Any

import pytest
from pydantic import ValidationError

from fastapi_cloudflare_access.identity import Geo, Identity, IdentityProvider

ADA = Identity.model_validate(
    {
        "user_uuid": "ada",
        "email": "ada@acme.example",
        "groups": ["users"],
        "idp": {"id": "1", "type": "okta"},
        "geo": {"country": "DE", "city": "Ulm"},
        "clearance": "low",
    }
)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *((ADA, name) for name in ("user_uuid", "email", "groups", "idp", "geo", "clearance", "unknown")),
        *((ADA.idp, name) for name in ("id", "type", "unknown")),
        *((ADA.geo, name) for name in ("country", "city", "unknown")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_no_attribute_of_an_identity_can_be_set_or_deleted(model: Any, name: str) -> None:
    before = model.model_dump()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, name, "admins")
    with pytest.raises((ValidationError, AttributeError)):
        delattr(model, name)
    assert model.model_dump() == before


@pytest.mark.parametrize("wrong", [{"user_uuid": 5551234, "email": "ada@acme.example"}, {"email": "ada@acme.example"}])
def test_an_error_about_an_identity_shows_no_value_of_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        Identity.model_validate(wrong)
    assert "user_uuid" in str(raised.value)
    assert "acme" not in str(raised.value)
    assert "5551234" not in str(raised.value)


@pytest.mark.parametrize("model", [Identity, IdentityProvider, Geo])
def test_each_field_of_an_identity_is_described(model: type[Identity | IdentityProvider | Geo]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_schema_of_an_identity_shows_the_descriptions() -> None:
    assert Identity.model_json_schema()["properties"]["user_uuid"]["description"] == (
        "The user's id, equal to `sub` of the verified token."
    )


TEXTS = (
    *("email", "name", "id", "account_id", "ip", "auth_status", "common_name", "service_token_id"),
    *("gateway_account_id", "device_id"),
)
TRUTHS = ("service_token_status", "is_warp", "is_gateway")
OBJECTS = ("oidc_fields", "saml")


@pytest.mark.parametrize(
    ("names", "good", "wrong"),
    [
        (TEXTS, ["", "a"], [5, True, ["a"], {"a": 1}, b"a", None]),
        (TRUTHS, [True, False], ["true", 1, 0, [], None]),
        (("iat", "version"), [1, 1.5, -1], ["1", True, [1], None]),
        (OBJECTS, [{}, {"a": [1, None]}], ["a", 5, [["a", 1]], None]),
        (("amr",), [[], ["pwd", "mfa"]], ["pwd", [5], [["pwd"]], {"pwd": 1}, 5, None]),
        (("idp", "geo"), [{}, {"new": 1}], ["a", 5, [], True, None]),
    ],
    ids=["texts", "truths", "numbers", "objects", "lists of texts", "models"],
)
def test_a_value_of_the_type_of_its_field_is_kept_and_any_other_is_none(
    names: tuple[str, ...], good: list[Any], wrong: list[Any]
) -> None:
    for name in names:
        assert [Identity.model_validate({"user_uuid": "ada", name: value}).model_dump()[name] for value in wrong] == [
            None
        ] * len(wrong)
        kept = [getattr(Identity.model_validate({"user_uuid": "ada", name: value}), name) for value in good]
        assert [value.model_extra if name in ("idp", "geo") else value for value in kept] == good


def test_a_field_that_is_absent_is_none() -> None:
    empty = Identity(user_uuid="ada")
    assert {*empty.model_dump().values()} == {"ada", None}
    assert [*IdentityProvider().model_dump().values(), *Geo().model_dump().values()] == [None] * 3


def test_a_wrong_field_of_a_part_is_none_and_its_other_fields_stay() -> None:
    made = Identity.model_validate(
        {"user_uuid": "ada", "idp": {"id": 5, "type": "okta"}, "geo": {"country": 49, "city": "Ulm"}}
    )
    assert made.idp
    assert (made.idp.id, made.idp.type) == (None, "okta")
    assert made.geo
    assert (made.geo.country, made.geo.model_extra) == (None, {"city": "Ulm"})


@pytest.mark.parametrize("wrong", [None, 5, True, b"ada", ["ada"]])
def test_there_is_no_identity_without_the_id_of_a_user(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Identity.model_validate({"user_uuid": wrong})


@pytest.mark.parametrize(
    "name", ["groups", "amr", "oidc_fields", "saml", "device_sessions", "devicePosture", "mtls_auth", "unknown"]
)
def test_lists_and_objects_of_an_identity_cannot_be_changed(name: str) -> None:
    """Else a handler could make its caller an admin for the next request, since an identity is used again."""
    for value in [["a"]] if name == "amr" else [{"a": ["b"]}] if name in OBJECTS else [["a", {"b": []}], {"a": ["b"]}]:
        kept = getattr(Identity.model_validate({"user_uuid": "ada", name: value}), name)
        assert kept == value
        with pytest.raises(TypeError, match="cannot be changed"):
            kept.clear()


def test_what_a_provider_or_a_place_has_more_is_kept_and_cannot_be_changed() -> None:
    for made in (IdentityProvider.model_validate({"new": {"a": []}}), Geo.model_validate({"new": {"a": []}})):
        assert made.model_extra == {"new": {"a": []}}
        with pytest.raises(TypeError, match="cannot be changed"):
            made.model_extra["new"]["a"].append("b")


@pytest.mark.parametrize("model", [Identity, IdentityProvider, Geo])
def test_a_parameter_of_such_a_type_gets_a_dependency(model: type[Identity | IdentityProvider | Geo]) -> None:
    assert model.dependency == "access.identity"


def test_an_identity_keeps_the_place_and_the_provider_that_it_was_made_from() -> None:
    place, provider = Geo(country="DE"), IdentityProvider(id="1", type="okta")
    made = Identity(user_uuid="ada", geo=place, idp=provider)
    assert (made.geo, made.idp) == (place, provider)
