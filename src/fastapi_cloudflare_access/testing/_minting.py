"""What each kind of token says that a team signs, claim by claim as on the wire; the ids follow from names alone."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypedDict, cast
from uuid import NAMESPACE_URL, uuid5

from fastapi_cloudflare_access.errors import ConfigurationError

Payload = dict[str, Any]

DAY = 86_400
HOSTNAME = "app.example.com"

_CLIENT_ID = re.compile(r"[0-9a-f]{32}\.access")
_WANTED: dict[str, tuple[type | tuple[type, ...], str]] = {
    "email": (str, "text"),
    "name": (str, "text"),
    "audience": (str, "text"),
    "groups": ((list, tuple), "a list"),
    "custom": (Mapping, "a mapping of names to values"),
    "country": (str, "text"),
    "expires_in": (int, "a whole number of seconds"),
    "hostname": (str, "text"),
    "claims": (Mapping, "a mapping of names to values"),
}


def as_json(value: object, *, what: str) -> bytes:
    """Write JSON as short as it goes, in UTF-8.

    Raises:
        ConfigurationError: JSON cannot say it.
    """
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise ConfigurationError(f"{what} must be what JSON in UTF-8 can say: {problem}") from None


class UserOptions(TypedDict, total=False):
    """What may be said about a user token.

    Attributes:
        audience: The AUD tag, one of the team's; by default its first.
        groups: The user's groups; Access puts them into `custom`.
        custom: OIDC claims or SAML attributes.
        country: ISO 3166-1 alpha-2; by default `US`.
        expires_in: Seconds; by default a day.
        hostname: Of the application; by default `app.example.com`.
        claims: Any other claims; they replace those of the same name.
    """

    audience: str
    groups: Sequence[Any]
    custom: Mapping[str, Any]
    country: str
    expires_in: int
    hostname: str
    claims: Mapping[str, Any]


class ServiceOptions(TypedDict, total=False):
    """What may be said about a service's token.

    Attributes:
        audience: The AUD tag, one of the team's; by default its first.
        expires_in: Seconds; by default 3601, as seen for a session of an hour.
        hostname: Of the application; by default `app.example.com`.
        claims: Any other claims; they replace those of the same name.
    """

    audience: str
    expires_in: int
    hostname: str
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Minter:
    """Makes claims for one team at one moment.

    Attributes:
        issuer: The team domain, an origin.
        team: What the ids follow from.
        now: Seconds since 1970.
    """

    issuer: str
    team: str
    now: int

    def user(self, email: str, audience: str, options: UserOptions) -> Payload:
        """A login of a user to an application."""
        _check({"email": email})
        _check(options, known=UserOptions)
        custom = dict(options.get("custom", {}))
        if "groups" in options:
            custom["groups"] = list(options["groups"])
        return {
            "aud": [audience],
            "email": email,
            **self._times(options.get("expires_in", DAY), "exp", "iat", "nbf"),
            "iss": self.issuer,
            "type": "app",
            "identity_nonce": self._hex("nonce", email, self.now)[:16],
            "sub": self.user_id(email),
            "country": options.get("country", "US"),
            "policy_id": self._uuid("policy"),
            "h_INTERNAL_DO_NOT_USE": options.get("hostname", HOSTNAME),
            **({"custom": custom} if custom else {}),
            **options.get("claims", {}),
        }

    def service(self, name: str, audience: str, options: ServiceOptions) -> Payload:
        """A login of a service token to an application."""
        _check({"name": name})
        _check(options, known=ServiceOptions)
        return {
            "type": "app",
            **self._times(options.get("expires_in", 3601), "iat", "exp"),
            "iss": self.issuer,
            "sub": "",
            "aud": audience,
            "common_name": self.client_id(name),
            "h_INTERNAL_DO_NOT_USE": options.get("hostname", HOSTNAME),
            **options.get("claims", {}),
        }

    def org(self, email: str, *, expires_in: int = DAY) -> Payload:
        """A login of a user to the team itself, the cookie of the team domain."""
        _check({"email": email, "expires_in": expires_in})
        return {
            "aud": [self._hex("organization")],
            "email": email,
            "account_id": self._hex("account")[:32],
            **self._times(expires_in, "exp", "iat", "nbf"),
            "iss": self.issuer,
            "sub": self.user_id(email),
            "type": "org",
            "identity_nonce": self._hex("nonce", email, self.now)[:16],
            "identity": self.identity(email),
        }

    def meta(
        self, audience: str, *, hostname: str = HOSTNAME, redirect_url: str = "/", expires_in: int = 300
    ) -> Payload:
        """The `meta` parameter of a login redirect; anybody gets one."""
        certificate = {"cert_issuer_dn": "", "cert_serial": "", "cert_issuer_ski": "", "cert_presented": False}
        return {
            "type": "meta",
            "aud": audience,
            "hostname": hostname,
            "redirect_url": redirect_url,
            "service_token_status": False,
            "is_warp": False,
            "is_gateway": False,
            **self._times(expires_in, "exp", "nbf", "iat"),
            "auth_status": "NONE",
            "mtls_auth": {**certificate, "common_name": "", "auth_status": "NONE"},
            "real_country": "US",
            "app_session_hash": self._hex("session"),
        }

    def match(self, audience: str, *, hostname: str = HOSTNAME) -> Payload:
        """The header `cf-access-metadata`, which anybody gets who asks with HEAD."""
        return {
            "type": "match",
            "hostname": hostname,
            "auth_domain": self.issuer.partition("://")[2],
            "aud": audience,
            "app_hostname": hostname,
            "iat": self.now,
        }

    def identity(self, email: str) -> Payload:
        """What get-identity tells about a user."""
        return {
            "id": self.user_id(email),
            "name": email.partition("@")[0],
            "email": email,
            "amr": ["pwd"],
            "idp": {"id": self._uuid("idp"), "type": "onetimepin"},
            "geo": {"country": "US"},
            "user_uuid": self.user_id(email),
            "account_id": self._hex("account")[:32],
            "iat": self.now,
            "ip": "192.0.2.1",
            "auth_status": "NONE",
            "common_name": "",
            "service_token_id": "",
            "service_token_status": False,
            "is_warp": False,
            "is_gateway": False,
            "version": 2,
            "device_sessions": {},
        }

    def user_id(self, email: str) -> str:
        """The `sub` of the user with this address: a UUID, the same in every run."""
        return self._uuid("user", email)

    def client_id(self, name: str) -> str:
        """The `common_name` of the service of this name, `<32 hex>.access`; a Client ID is its own."""
        return name if _CLIENT_ID.fullmatch(name) else f"{self._hex('service', name)[:32]}.access"

    def _times(self, expires_in: int, *names: str) -> dict[str, int]:
        return {name: self.now + expires_in if name == "exp" else self.now for name in names}

    def _hex(self, *what: object) -> str:
        return sha256("\n".join(map(str, (self.team, *what))).encode()).hexdigest()

    def _uuid(self, *what: object) -> str:
        return str(uuid5(NAMESPACE_URL, self._hex(*what)))


def _check(given: Mapping[str, Any], known: type | None = None) -> None:
    """Refuse what a type checker would have refused: a token that silently lacks an option proves nothing."""
    names = list(known.__annotations__ if known else given)
    for name, value in given.items():
        if name not in names:
            raise ConfigurationError(f"there is no option {name}; there are {', '.join(names)}")
        kind, wanted = _WANTED[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigurationError(f"{name} is {wanted}, not {type(value).__name__}")
        as_json(dict(cast("Payload", value)) if kind is Mapping else value, what=name)
