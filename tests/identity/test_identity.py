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
    assert "555" not in str(raised.value)


@pytest.mark.parametrize("model", [Identity, IdentityProvider, Geo])
def test_each_field_of_an_identity_is_described(model: type[Identity | IdentityProvider | Geo]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_schema_of_an_identity_shows_the_descriptions() -> None:
    assert Identity.model_json_schema()["properties"]["user_uuid"]["description"] == (
        "The user's id, equal to `sub` of the verified token."
    )


def test_an_identity_keeps_the_place_and_the_provider_that_it_was_made_from() -> None:
    place, provider = Geo(country="DE"), IdentityProvider(id="1", type="okta")
    made = Identity(user_uuid="ada", geo=place, idp=provider)
    assert (made.geo, made.idp) == (place, provider)
