"""Who calls: the verified claims of an application token, typed and frozen.

Fields are named as on the wire. Sources: "Application token" in Cloudflare's documentation, and, for the claims marked
*undocumented*, tokens as they are seen. Unknown claims are kept and readable as attributes or through `model_extra`.
"""

from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, StrictInt, StrictStr
from pydantic_core import CoreSchema

from fastapi_cloudflare_access._frozen import FrozenDict, freeze
from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access._verified_model import VerifiedModel, instances_only, never_from_a_request

MAX_TIME = 253_402_300_799
"""The last second of the year 9999, in seconds since 1970."""

Seconds = Annotated[StrictInt, Field(ge=0, le=MAX_TIME)]
Text = StrictStr


def _custom(value: Any) -> Any:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError("must be a JSON object")
    return freeze(value or {})


Frozen = Annotated[Any, AfterValidator(freeze)]
Extra = Annotated[StrictStr | Frozen, Field(union_mode="left_to_right")]  # text needs no call into Python


class Principal(NamedTuple):
    """What identifies a caller for good; key your records on it.

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
    """What every application token carries."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True, use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, Extra]  # pyright: ignore[reportIncompatibleVariableOverride] - typed extras

    iss: Text
    """The team's domain, `https://<team>.cloudflareaccess.com`."""
    aud: tuple[Text, ...]
    """The AUD tags of the applications it was issued for; a list for users, one text for services on the wire."""
    exp: Seconds
    """When it expires, in seconds since 1970."""
    iat: Seconds
    """When it was issued, in seconds since 1970."""
    type: Literal["app"] = "app"
    """Always `app`; the other tokens a team signs are refused."""
    policy_id: Text | None = None
    """The policy that let the caller in (*undocumented*)."""

    @property
    def expires_at(self) -> datetime:
        """When the token expires, as an aware UTC datetime."""
        return datetime.fromtimestamp(self.exp, UTC)

    @property
    def issued_at(self) -> datetime:
        """When the token was issued, as an aware UTC datetime."""
        return datetime.fromtimestamp(self.iat, UTC)

    @property
    def model_fields_set(self) -> set[str]:
        """The claims that the token carries; a copy."""
        return set(self.__pydantic_fields_set__)

    def __iter__(self) -> Generator[tuple[str, Any]]:
        """Iterate over the claims that are serialised, so that `dict(claims)` has no other."""
        hidden = {name for name, field in type(self).model_fields.items() if field.exclude}
        return ((name, value) for name, value in super().__iter__() if name not in hidden)

    @property
    def model_extra(self) -> dict[str, Any]:
        """The claims this model does not name, read-only."""
        return FrozenDict(self.__pydantic_extra__ or {})


class UserClaims(BaseClaims):
    """A person who logged in.

    Key your records on `principal`, not on the address: an address can be given to somebody else.
    """

    sub: Annotated[Text, Field(min_length=1)]
    """The user's id, unique for an address in an account; a user who is removed and added again gets a new one."""
    email: Text | None = None
    """The address the identity provider vouched for, in its spelling."""
    nbf: Seconds | None = None
    """Before when it is not valid, in seconds since 1970."""
    country: Text | None = None
    """Where the user logged in from, ISO 3166-1 alpha-2."""
    identity_nonce: Annotated[Text | None, Field(repr=False, exclude=True)] = None
    """The key to the user's full identity; never serialised, since it opens that identity to whoever has it."""
    common_name: Text | None = None
    """The common name of the client certificate, where one was asked for."""
    device_id: Text | None = None
    """The device, where the Cloudflare One client runs (*undocumented*)."""
    custom: Annotated[Any, AfterValidator(_custom), Field(default_factory=FrozenDict)]
    """The OIDC claims or SAML attributes configured for the application.

    Access trims them, from the end of its list, where they grow too large for a cookie. Give them a type in a subclass.
    """

    @property
    def principal(self) -> Principal:
        """What identifies this user for good: `(issuer, subject)`."""
        return Principal(self.iss, self.sub)


class ServiceClaims(BaseClaims):
    """A machine: a service token, or a client certificate without a user."""

    sub: Literal[""] = ""
    """Always empty: never key anything on it."""
    common_name: Annotated[Text, Field(min_length=1)]
    """The Client ID of the service token, `<32 hex>.access`, or the common name of the certificate."""
    nbf: Seconds | None = None
    """Before when it is not valid, where it says so; service tokens do not."""

    @property
    def client_id(self) -> str:
        """The Client ID of the service token; the claim is called `common_name`.

        For a client certificate it is the common name that its CA wrote, which may equal a Client ID.
        """
        return self.common_name

    @property
    def principal(self) -> Principal:
        """What identifies this service for good: `(issuer, client_id)`."""
        return Principal(self.iss, self.common_name)


Claims = UserClaims | ServiceClaims
"""Either kind of caller."""
