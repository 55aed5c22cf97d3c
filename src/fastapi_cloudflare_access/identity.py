"""The identity of a user, as get-identity returns it: it has all groups, for which a token can be too small.

Fields are named as on the wire. Source: "User identity" in Cloudflare's documentation, and, for the fields marked
*undocumented*, documents as they are seen.
"""

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Strict, StrictBool, ValidationError, WrapValidator
from pydantic import ValidatorFunctionWrapHandler as Handler

from fastapi_cloudflare_access._frozen import freeze
from fastapi_cloudflare_access._verified_model import VerifiedModel
from fastapi_cloudflare_access.claims import Extra, Frozen, Text

T = TypeVar("T")


def _none_if_wrong(value: Any, handler: Handler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return None


Documented = Annotated[T | None, WrapValidator(_none_if_wrong)]
"""A field of this type. A value of another type is None: one odd field must not lock a user out."""


Texts = Annotated[list[Text], AfterValidator(freeze)]
Number = Annotated[float, Strict()]
Object = Annotated[dict[str, Any], AfterValidator(freeze)]

_CONFIG = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True, use_attribute_docstrings=True)


class IdentityProvider(VerifiedModel):
    """The identity provider of a login."""

    model_config = _CONFIG
    __pydantic_extra__: dict[str, Extra]  # pyright: ignore[reportIncompatibleVariableOverride] - typed extras
    dependency: ClassVar[str | None] = "access.identity"

    id: Documented[Text] = None
    """The id of the identity provider."""
    type: Documented[Text] = None
    """Its type, such as `onetimepin`, `azureAD`, `google` or `oidc`."""


class Geo(VerifiedModel):
    """The place of a login."""

    model_config = _CONFIG
    __pydantic_extra__: dict[str, Extra]  # pyright: ignore[reportIncompatibleVariableOverride] - typed extras
    dependency: ClassVar[str | None] = "access.identity"

    country: Documented[Text] = None
    """The country, ISO 3166-1 alpha-2."""


def _make_provider(value: Any) -> IdentityProvider:
    return value if isinstance(value, IdentityProvider) else IdentityProvider.model_validate(value)


def _make_geo(value: Any) -> Geo:
    return value if isinstance(value, Geo) else Geo.model_validate(value)


ProviderObject = Annotated[IdentityProvider, BeforeValidator(_make_provider)]
GeoObject = Annotated[Geo, BeforeValidator(_make_geo)]


class Identity(VerifiedModel):
    """The identity of a user. Every field but `user_uuid` can be absent; unknown fields are kept.

    A field whose value has another type than the one documented is None.
    """

    model_config = _CONFIG
    __pydantic_extra__: dict[str, Extra]  # pyright: ignore[reportIncompatibleVariableOverride] - typed extras
    dependency: ClassVar[str | None] = "access.identity"

    user_uuid: Text
    """The user's id, equal to `sub` of the verified token."""
    email: Documented[Text] = None
    """The email address."""
    name: Documented[Text] = None
    """The name (*undocumented*)."""
    id: Documented[Text] = None
    """The user's id at the identity provider (*undocumented*)."""
    groups: Frozen = None
    """The groups: texts, or objects with `id` and `name`, as the identity provider sends them (*undocumented*)."""
    amr: Documented[Texts] = None
    """The authentication methods of the login, such as `pwd` and `mfa` (RFC 8176; *undocumented*)."""
    idp: Documented[ProviderObject] = None
    """The identity provider."""
    geo: Documented[GeoObject] = None
    """The place of the login."""
    oidc_fields: Documented[Object] = None
    """The OIDC claims configured for the identity provider; a token has them under `custom` (*undocumented*)."""
    saml: Documented[Object] = None
    """The SAML attributes configured for the identity provider; a token has them under `custom` (*undocumented*)."""
    account_id: Documented[Text] = None
    """The id of the Cloudflare account."""
    iat: Documented[Number] = None
    """Time of the login, in seconds since 1970."""
    ip: Documented[Text] = None
    """The IP address of the login."""
    auth_status: Documented[Text] = None
    """The status of authentication by a client certificate."""
    common_name: Documented[Text] = None
    """The common name of the client certificate."""
    service_token_id: Documented[Text] = None
    """The Client ID of a service token."""
    service_token_status: Documented[StrictBool] = None
    """Whether a service token was used."""
    is_warp: Documented[StrictBool] = None
    """Whether the Cloudflare One client was used."""
    is_gateway: Documented[StrictBool] = None
    """Whether the Cloudflare One client was enrolled in the team."""
    gateway_account_id: Documented[Text] = None
    """The id of the account that the client is enrolled in."""
    device_id: Documented[Text] = None
    """The id of the device."""
    device_sessions: Frozen = None
    """The sessions of the user, by device."""
    devicePosture: Frozen = None  # noqa: N815 - as on the wire
    """The device posture checks, by id."""
    mtls_auth: Frozen = None
    """The client certificate (*undocumented*)."""
    version: Documented[Number] = None
    """The version of the document."""
