"""The models of verified claims: `UserClaims` and `ServiceClaims`, typed and frozen.

Fields are named as on the wire. Sources: "Application token" in Cloudflare's documentation, and, for the claims marked
*undocumented*, tokens as they are seen. Unknown claims are kept and readable as attributes or through `model_extra`.
"""

from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from inspect import cleandoc
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictInt,
    StrictStr,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fastapi_cloudflare_access._frozen import FrozenDict, freeze
from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access._verified_model import VerifiedModel, instances_only, never_from_a_request

MAX_TIME = 253_402_300_799
"""The last second of the year 9999, in seconds since 1970."""

Seconds = Annotated[StrictInt, Field(ge=0, le=MAX_TIME)]
Text = StrictStr


_CURRENT_ISSUER = "_current_issuer"

_ATTRIBUTES = "\n\nAttributes:\n"
"""Separates the docstring of a model from the descriptions of its fields, which `help()` shows."""


def _custom(value: Any) -> Any:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError("must be a JSON object")
    return freeze(value or {})


Frozen = Annotated[Any, AfterValidator(freeze)]
Extra = Annotated[
    StrictStr | Frozen, Field(union_mode="left_to_right")
]  # fast path: a string needs no call into Python


class Principal(NamedTuple):
    """The lasting identity of a caller; use it as the key of your records.

    Attributes:
        issuer: The team domain, `https://<team>.cloudflareaccess.com`.
        subject: The `sub` of a user, or the client id of a service.
    """

    issuer: str
    subject: str

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema that admits instances only, since a principal never comes from a request."""
        return instances_only(cls, handler(source))


forbid_as_dependency(Principal, never_from_a_request(Principal))


class BaseClaims(VerifiedModel):
    """The claims of every application token."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True, use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, Extra]  # pyright: ignore[reportIncompatibleVariableOverride] - typed extras

    iss: Text
    """The issuer: the team domain, `https://<team>.cloudflareaccess.com`."""
    aud: tuple[Text, ...]
    """The AUD tags of the applications that the token was issued for."""
    exp: Seconds
    """Time of expiry, in seconds since 1970."""
    iat: Seconds
    """Time of issue, in seconds since 1970."""
    type: Literal["app"] = "app"
    """Always `app`; other tokens of the team are rejected."""
    policy_id: Text | None = None
    """The id of the Access policy that admitted the caller (*undocumented*)."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the JSON Schema; its fields have descriptions of their own, so the docstring's list is left out."""
        described = handler(schema)
        model = handler.resolve_ref_schema(described)
        if "description" in model:
            model["description"] = model["description"].partition(_ATTRIBUTES)[0]
        return described

    @property
    def current_issuer(self) -> str:
        """The team domain of today; it differs from `iss` if the token carries a former name of the team."""
        return str((self.__pydantic_private__ or {}).get(_CURRENT_ISSUER, self.iss))

    def _set_current_issuer(self, issuer: str) -> None:
        """Set the team domain of today. No private attribute is declared, since each instance would have to set it."""
        private = {**(self.__pydantic_private__ or {}), _CURRENT_ISSUER: issuer}
        object.__setattr__(self, "__pydantic_private__", private)

    @property
    def expires_at(self) -> datetime:
        """Time of expiry, as an aware UTC datetime."""
        return datetime.fromtimestamp(self.exp, UTC)

    @property
    def issued_at(self) -> datetime:
        """Time of issue, as an aware UTC datetime."""
        return datetime.fromtimestamp(self.iat, UTC)

    def __iter__(self) -> Generator[tuple[str, Any]]:
        """Iterate over the claims that are serialised, so that `dict(claims)` has only these."""
        hidden = {name for name, field in type(self).model_fields.items() if field.exclude}
        return ((name, value) for name, value in super().__iter__() if name not in hidden)


class UserClaims(BaseClaims):
    """A user that logged in.

    Use `principal` as the key of your records, not the address: an address can pass to another person.
    """

    sub: Annotated[Text, Field(min_length=1)]
    """The user's id, unique for an address in an account; it changes if the user is removed and added again."""
    email: Text | None = None
    """The email address, as the identity provider spells it."""
    nbf: Seconds | None = None
    """Time before which the token is not valid, in seconds since 1970."""
    country: Text | None = None
    """The country that the user logged in from, ISO 3166-1 alpha-2."""
    identity_nonce: Annotated[Text | None, Field(repr=False, exclude=True)] = None
    """The key to the user's full identity; never serialised, since it is a secret."""
    common_name: Text | None = None
    """The common name of the client certificate, if the application asks for one."""
    device_id: Text | None = None
    """The id of a device on which the Cloudflare One client runs (*undocumented*)."""
    custom: Annotated[Any, AfterValidator(_custom), Field(default_factory=FrozenDict)]
    """The OIDC claims or SAML attributes configured for the application.

    Access drops the last ones if they are too large for a cookie. A subclass can give them a type.
    """

    @property
    def principal(self) -> Principal:
        """The lasting identity of this user: `(current_issuer, sub)`."""
        return Principal(self.current_issuer, self.sub)


class ServiceClaims(BaseClaims):
    """A service: the caller used a service token, or a client certificate without a user."""

    sub: Literal[""] = ""
    """Always empty; not an id."""
    common_name: Annotated[Text, Field(min_length=1)]
    """The Client ID of the service token, `<32 hex>.access`, or the common name of the certificate."""
    nbf: Seconds | None = None
    """Time before which the token is not valid, in seconds since 1970; service tokens have none."""

    @property
    def client_id(self) -> str:
        """The Client ID of the service token; the claim is called `common_name`.

        For a client certificate this is the common name that its CA wrote, which may equal a Client ID.
        """
        return self.common_name

    @property
    def principal(self) -> Principal:
        """The lasting identity of this service: `(current_issuer, client_id)`."""
        return Principal(self.current_issuer, self.common_name)


for _model in (UserClaims, ServiceClaims):
    _fields = [f"    {name}: {_field.description}" for name, _field in _model.model_fields.items()]
    _model.__doc__ = cleandoc(_model.__doc__ or "") + _ATTRIBUTES + "\n".join(_fields)

Claims = UserClaims | ServiceClaims
"""Either kind of caller."""
