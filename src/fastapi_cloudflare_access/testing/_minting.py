"""Claims of each kind of token that a team signs, as on the wire; ids depend on names alone."""

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


def as_json(value: object, *, what: str) -> bytes:
    """Return compact JSON in UTF-8; `what` names the value in the error.

    Raises:
        ConfigurationError: The value cannot be encoded as JSON.
    """
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise ConfigurationError(f"{what} cannot be encoded as JSON in UTF-8: {problem}") from None


class UserOptions(TypedDict, total=False):
    """Options of a user token.

    Attributes:
        audience: An AUD tag of the team; by default the first.
        groups: The user's groups, which Access adds to `custom`.
        custom: OIDC claims or SAML attributes.
        country: ISO 3166-1 alpha-2 code; by default `US`.
        expires_in: Lifetime in seconds; by default a day.
        hostname: Host of the application; by default `app.example.com`.
        claims: Other claims; they replace claims of the same name.
    """

    audience: str
    groups: Sequence[Any]
    custom: Mapping[str, Any]
    country: str
    expires_in: int
    hostname: str
    claims: Mapping[str, Any]


class ServiceOptions(TypedDict, total=False):
    """Options of a service's token.

    Attributes:
        audience: An AUD tag of the team; by default the first.
        expires_in: Lifetime in seconds; by default 3601, as observed for a session of an hour.
        hostname: Host of the application; by default `app.example.com`.
        claims: Other claims; they replace claims of the same name.
    """

    audience: str
    expires_in: int
    hostname: str
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Minter:
    """Claims for one team at one time.

    Attributes:
        issuer: The team domain, an origin.
        team: The name that determines the ids.
        now: The time in seconds since 1970.
    """

    issuer: str
    team: str
    now: int

    def user(self, email: str, audience: str, options: UserOptions) -> Payload:
        """Return the claims of a user's login to an application."""
        _check_json({"email": email})
        _check_options(options, UserOptions)
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
        """Return the claims of a service token's login to an application."""
        _check_json({"name": name})
        _check_options(options, ServiceOptions)
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
        """Return the claims of a user's login to the team, the cookie of the team domain."""
        _check_json({"email": email})
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
        """Return the claims of the public `meta` parameter of a login redirect."""
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
        """Return the claims of the header `cf-access-metadata`, the public response to HEAD."""
        return {
            "type": "match",
            "hostname": hostname,
            "auth_domain": self.issuer.partition("://")[2],
            "aud": audience,
            "app_hostname": hostname,
            "iat": self.now,
        }

    def identity(self, email: str) -> Payload:
        """Return the get-identity document of a user."""
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
        """Return the `sub` of the user with this address: a UUID, the same in every run."""
        return self._uuid("user", email)

    def client_id(self, name: str) -> str:
        """Return the `common_name` of a service, `<32 hex>.access`; a Client ID is returned unchanged."""
        return name if _CLIENT_ID.fullmatch(name) else f"{self._hex('service', name)[:32]}.access"

    def _times(self, expires_in: int, *names: str) -> dict[str, int]:
        return {name: self.now + expires_in if name == "exp" else self.now for name in names}

    def _hex(self, *what: object) -> str:
        return sha256("\n".join(map(str, (self.team, *what))).encode()).hexdigest()

    def _uuid(self, *what: object) -> str:
        return str(uuid5(NAMESPACE_URL, self._hex(*what)))


def _check_options(options: Mapping[str, Any], known: type) -> None:
    """Check names and values of options; a misspelled option would be dropped without an error."""
    names = known.__annotations__
    for name in options:
        if name not in names:
            raise ConfigurationError(f"unknown option {name}; the options are {', '.join(names)}")
    if isinstance(options.get("groups"), str):  # also a sequence, of characters
        raise ConfigurationError("groups must be a list, not str")
    _check_json(options)


def _check_json(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        as_json(dict(cast("Payload", value)) if isinstance(value, Mapping) else value, what=name)
