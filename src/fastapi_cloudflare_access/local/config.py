"""The configuration of a local Access: frozen models of team, apps, users, service tokens and policies."""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from fastapi_cloudflare_access._verification.strict import parse_json_object

TEAM_HOST = "127.0.0.1"
"""Host of the team; no app can have it."""
DAY = 86_400
MAX_SESSION = 30 * DAY
"""Longest session, in seconds."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*{_LABEL}")
_TEAM_DOMAIN = re.compile(rf"{_LABEL}(?:\.fed)?\.cloudflareaccess\.com")
_EMAIL = re.compile(
    r"[^\s@<>\"',;:\\()\[\]\x00-\x20\x7f\ud800-\udfff]{1,64}@[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?"
)
_AUDIENCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,256}")
_ORIGIN = re.compile(
    r"(https?)://(?:([A-Za-z0-9_][A-Za-z0-9_.-]{0,252})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?/?"
)
_PATH = re.compile(r"/(?:(?!\.\.?(?:/|$))[^\s/?#%*\\]+(?:/|$))*")
_DURATION = re.compile(r"([0-9]{1,7})\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY}
_CORS_ORIGIN = re.compile(
    rf"\*|(?:http(?!://[^/]*:80$)|https(?!://[^/]*:443$))://(?:(?:{_LABEL}\.)*{_LABEL}|\[[0-9a-f:.]{{2,45}}\])"
    r"(?::[1-9][0-9]{0,4})?"
)
_COUNTRY = re.compile(r"[A-Z]{2}")
_CLIENT_ID = re.compile(r"(?:[0-9a-f]{32}\.access)?")
_SECRET = re.compile(r"[\x21-\x7e]{0,256}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_NAME = re.compile(
    r"(?!(?:host|connection|cookie|upgrade|content-.*|transfer-.*|sec-.*|cf-.*)$)[a-z0-9-]{1,64}", re.IGNORECASE
)


def _matching(pattern: re.Pattern[str], message: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a server.

    Attributes:
        scheme: `http` or `https`.
        host: Name or IP address, without brackets.
        port: Port; by default that of the scheme.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an origin such as `http://127.0.0.1:8000`.

        Raises:
            ValueError: The text is not a valid origin.
        """
        found = _ORIGIN.fullmatch(text)
        port = int(found[4] or {"http": 80, "https": 443}[found[1]]) if found else 0
        if not found or not 1 <= port <= 65_535:  # noqa: PLR2004 - the highest port
            raise ValueError("must be an origin, such as 'http://127.0.0.1:8000'")
        return cls(found[1], found[2] or found[3], port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def _duration(value: object) -> int:
    found = _DURATION.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 1 <= seconds <= MAX_SESSION:
        raise ValueError("must be a time of 1 second to 30 days, such as '24h', '30m' or 900")
    return seconds


def is_email(text: str) -> bool:
    """Return whether the text is an email address."""
    return len(text) <= 254 and _EMAIL.fullmatch(text) is not None  # noqa: PLR2004 - RFC 5321 section 4.5.3.1.3


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


def _email(value: str) -> str:
    if not is_email(value):
        raise ValueError("must be an email address")
    return value.lower()


def _claim(value: Any) -> Any:
    """Return the value if a token can carry it."""
    try:
        parse_json_object(json.dumps({"identity": {"oidc_fields": {"name": value}}}).encode())
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be a JSON value: no date or time, no nan or inf, no deep nesting") from None
    return value


Duration = Annotated[int, BeforeValidator(_duration)]
Email = Annotated[str, AfterValidator(_email)]
Claim = Annotated[Any, AfterValidator(_claim)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Host = Annotated[str, _matching(_HOST, "must be a host name in lower case, such as 'localhost' or 'shop.localhost'")]
Path = Annotated[
    str,
    _matching(_PATH, "must be a path such as '/admin', without a query, '*', '%', '//' or dot segments"),
    AfterValidator(lambda path: path.rstrip("/") or "/"),
]
Upstream = Annotated[str, AfterValidator(lambda text: str(Origin.parse(text)))]
CorsOrigin = Annotated[
    str,
    _matching(
        _CORS_ORIGIN,
        "must be an origin as browsers send it, such as 'https://shop.example.com', in lower case, without a path and "
        "without the default port; or '*'",
    ),
]
CorsName = Annotated[str, _matching(_TOKEN, "must be a name without blanks, or '*'")]
Audience = Annotated[
    str,
    _matching(_AUDIENCE, "is not a valid AUD tag; leave it out, or copy it from the application's additional settings"),
]
HeaderName = Annotated[
    str, _matching(_HEADER_NAME, "must be the name of a header without another use, such as 'Authorization'")
]
Country = Annotated[str, _matching(_COUNTRY, "must be a country code of two capital letters, such as 'DE'")]
ClientId = Annotated[str, _matching(_CLIENT_ID, "must be 32 hexadecimal digits in lower case and '.access'")]
TeamDomain = Annotated[str, _matching(_TEAM_DOMAIN, "must be a team domain, such as 'acme.cloudflareaccess.com'")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Team(_Frozen):
    """The organisation.

    Attributes:
        name: Name on the pages; the ids of users and services are derived from it.
        domain: Team domain to serve over TLS; by default the team is at `http://127.0.0.1:PORT`.
        session: Lifetime of a login to the team, in seconds.
        strict_service_tokens: Whether rejected service credentials get 401 or 403 instead of a login.
        secure_cookies: Whether cookies are `Secure` and `SameSite=None` on plain HTTP too, as on Cloudflare.
    """

    name: Name = "local"
    domain: TeamDomain | None = None
    session: Duration = DAY
    strict_service_tokens: bool = False
    secure_cookies: bool = True


class Person(_Frozen):
    """A user on the login page.

    Attributes:
        email: Email address.
        name: Name in get-identity.
        groups: Names of groups; the token has them in `custom`.
        custom: OIDC claims or SAML attributes.
        country: ISO 3166-1 alpha-2 code.
        idp: Type of the identity provider.
        device_posture: Device checks in get-identity, by id.
    """

    email: Email
    name: Text = ""
    groups: tuple[Text, ...] = ()
    custom: dict[str, Claim] = {}
    country: Country = "US"
    idp: str = "onetimepin"
    device_posture: dict[str, Claim] = {}


class ServiceToken(_Frozen):
    """The credentials of a service.

    Attributes:
        name: Name in policies.
        client_id: 32 hexadecimal digits and `.access`; by default derived from the names of the token and the team.
        client_secret: Client Secret; by default random, and stored in the state folder.
    """

    name: Name
    client_id: ClientId = ""
    client_secret: Annotated[str, _matching(_SECRET, "must be at most 256 visible ASCII characters")] = ""


class Policy(_Frozen):
    """An Access policy: a decision, and the callers that it includes.

    Attributes:
        name: Name for readers of the file and of the log.
        decision: `allow` and `deny` apply to users, `service_auth` to service tokens. `bypass` forwards every request
            without a token.
        everyone: Whether all callers are included.
        emails: Addresses of included users.
        domains: Email domains of included users.
        groups: Groups of included users.
        service_tokens: Names of included service tokens; for `service_auth`.
    """

    name: Text = ""
    decision: Literal["allow", "deny", "bypass", "service_auth"] = "allow"
    everyone: bool = False
    emails: tuple[Email, ...] = ()
    domains: tuple[Host, ...] = ()
    groups: tuple[Text, ...] = ()
    service_tokens: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        people = bool(self.emails or self.domains or self.groups)
        if self.decision == "bypass" and (not self.everyone or people or self.service_tokens):
            raise ValueError("a bypass policy needs everyone = true and nothing else, because no caller is logged in")
        if self.decision == "service_auth" and people:
            raise ValueError("a service_auth policy includes service_tokens or everyone, not users")
        if self.decision in ("allow", "deny") and self.service_tokens:
            raise ValueError("service_tokens need decision = 'service_auth'")
        if not (self.everyone or people or self.service_tokens):
            raise ValueError("includes no caller: set everyone, emails, domains, groups or service_tokens")
        return self


EVERYONE = (
    Policy(name="Everyone", decision="allow", everyone=True),
    Policy(name="Every service token", decision="service_auth", everyone=True),
)
"""Default policies of an app."""


class App(_Frozen):
    """An application: a host, or some paths on it.

    Attributes:
        name: Name on the login page.
        host: Host name, such as `localhost` or `shop.localhost`.
        paths: Paths of the app; the most specific path on the host decides.
        audience: AUD tag; by default derived from the name of the app alone, see `tag`.
        upstream: Origin to forward to; by default the one on the command line.
        upstream_ca: File with the certificate authority of an HTTPS upstream, in PEM.
        session: Lifetime of its token, in seconds.
        policies: Policies, in order of evaluation.
        http_only: Whether its cookie is `HttpOnly`.
        same_site: `SameSite` attribute of its cookie.
        path_cookie: Whether the path of its cookie is the first path.
        bypass_options: Whether the app receives all OPTIONS requests, without a token.
        cors_origins: Origins whose CORS preflights the edge answers, or `*`; other origins get 403.
        cors_methods: Methods that these answers allow, or `*`.
        cors_headers: Request headers that these answers allow, or `*`.
        cors_credentials: Whether these answers allow credentials; a page needs them to send the login.
        cors_max_age: Seconds that a browser keeps such an answer.
        service_token_header: Header that may hold both service credentials as JSON.
        service_auth_401: Whether a request without service credentials gets 401 instead of 403.
        managed_oauth: Whether clients that are no browsers log in with OAuth 2.0.
        oauth_redirects: Redirect URIs that such clients may have, besides loopback ones.
    """

    name: Name
    host: Host = "localhost"
    paths: Annotated[tuple[Path, ...], Field(min_length=1)] = ("/",)
    audience: Audience | None = None
    upstream: Upstream | None = None
    upstream_ca: Text | None = None
    session: Duration = DAY
    policies: Annotated[tuple[Policy, ...], Field(min_length=1)] = EVERYONE
    http_only: bool = True
    same_site: Literal["none", "lax", "strict"] = "none"
    path_cookie: bool = False
    bypass_options: bool = False
    cors_origins: tuple[CorsOrigin, ...] = ()
    cors_methods: tuple[CorsName, ...] = ("GET",)
    cors_headers: tuple[CorsName, ...] = ()
    cors_credentials: bool = False
    cors_max_age: Annotated[int, Field(ge=0, le=DAY)] = 0
    service_token_header: HeaderName | None = None
    service_auth_401: bool = False
    managed_oauth: bool = False
    oauth_redirects: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cors_credentials and "*" in (*self.cors_origins, *self.cors_methods, *self.cors_headers):
            raise ValueError("cors_credentials needs names: browsers take '*' literally for requests with credentials")
        if self.bypass_options and self.cors_origins:
            raise ValueError("bypass_options sends preflights to the app, so cors_origins has no effect; leave one out")
        return self

    @property
    def tag(self) -> str:
        """AUD tag of the app."""
        return self.audience or sha256(f"local access/{self.name}".encode()).hexdigest()


PEOPLE = (
    Person(email="ada@example.com", name="Ada Lovelace", groups=("admins", "engineering"), country="GB"),
    Person(email="grace@example.com", name="Grace Hopper", groups=("engineering",)),
)


class Config(_Frozen):
    """The whole configuration; by default one app for everyone, two users and one service token."""

    team: Team = Team()
    apps: Annotated[tuple[App, ...], Field(min_length=1)] = (App(name="app"),)
    people: tuple[Person, ...] = PEOPLE
    service_tokens: tuple[ServiceToken, ...] = (ServiceToken(name="nightly-backup"),)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_unique(("apps", "name"), [app.name for app in self.apps])
        _check_unique(("apps", "audience"), [app.tag for app in self.apps])
        _check_unique(("people", "email"), [person.email for person in self.people])
        _check_unique(("service_tokens", "name"), [token.name for token in self.service_tokens])
        _check_unique(("service_tokens", "client_id"), [token.client_id for token in self.service_tokens])
        self._check_apps()
        return self

    def _check_apps(self) -> None:
        places: list[tuple[str, str]] = []
        known = {token.name for token in self.service_tokens}
        for number, app in enumerate(self.apps):
            if app.host in (TEAM_HOST, self.team.domain):
                raise _conflict(
                    ("apps", number, "host"), "is the host of the team; set another host, such as 'localhost'"
                )
            places += [(app.host, path) for path in app.paths]
            if len(places) != len(set(places)):
                raise _conflict(("apps", number, "paths"), "this host and path belong to two apps; change one of them")
            for rank, policy in enumerate(app.policies):
                if unknown := [name for name in policy.service_tokens if name not in known]:
                    path = ("apps", number, "policies", rank, "service_tokens")
                    raise _conflict(path, f"no service token has the name {unknown[0]!r}; add it to service_tokens")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts of all apps."""
        return tuple(dict.fromkeys(app.host for app in self.apps))

    @property
    def tags(self) -> tuple[str, ...]:
        """AUD tags of all apps."""
        return tuple(app.tag for app in self.apps)

    def person(self, email: str) -> Person:
        """Return the user with this address, or a new one without groups."""
        known = next((person for person in self.people if person.email == email), None)
        return known or Person(email=email)


def _check_unique(path: tuple[str, str], values: list[str]) -> None:
    for number, value in enumerate(values):
        if value and value in values[:number]:
            raise _conflict((path[0], number, path[1]), "appears twice")


def _conflict(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    return PydanticCustomError("conflict", "{message}", {"message": message, "path": path})
