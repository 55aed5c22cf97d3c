"""Everything that one running local Access knows."""

import secrets
from dataclasses import dataclass, field

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.local.config import TEAM_HOST, App, Config
from fastapi_cloudflare_access.local.state import Session, State
from fastapi_cloudflare_access.local.team import Claims, Team, random_nonce
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.testing import CertsEndpoint

NONCE_LIFETIME = 60.0
"""Seconds that the way back to the app may take."""
MAX_NONCES = 1000


class ShiftedClock:
    """The machine's clock, and how far the control page has set it off."""

    def __init__(self, base: Clock | None = None) -> None:
        """Show the time of `base`, or of the machine."""
        self._base = base or SystemClock()
        self.shift = 0.0

    def now(self) -> float:
        """The wall clock, in seconds since 1970."""
        return self._base.now() + self.shift

    def machine_now(self) -> float:
        """The wall clock as browsers know it, which keep cookies by it."""
        return self._base.now()

    def monotonic(self) -> float:
        """Seconds on a clock that is never set."""
        return self._base.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        await self._base.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the local Access listens.

    Attributes:
        port: For plain HTTP; the team is there too.
        tls_port: For TLS, where that is served.
        domain: The team domain it stands in for.
    """

    port: int
    tls_port: int | None = None
    domain: str | None = None

    @property
    def issuer(self) -> str:
        """The team domain, an origin."""
        return f"https://{self.domain}" if self.domain else f"http://{TEAM_HOST}:{self.port}"

    @property
    def team_hosts(self) -> frozenset[str]:
        """The hosts that the team is on."""
        return frozenset({TEAM_HOST, self.domain or TEAM_HOST})

    def netloc(self, host: str, *, scheme: str = "http") -> str:
        """Give the host with the port, where it is not the usual one."""
        port = self.tls_port if scheme == "https" else self.port
        return host if port == {"http": 80, "https": 443}[scheme] else f"{host}:{port}"

    def origins(self, host: str) -> dict[str, str]:
        """Give the origins that a host has here, by their netloc."""
        schemes = ("http", "https") if self.tls_port else ("http",)
        return {
            self.netloc(host, scheme=scheme): f"{scheme}://{self.netloc(host, scheme=scheme)}" for scheme in schemes
        }

    def origin(self, host: str) -> str:
        """Give the origin to show."""
        return list(self.origins(host).values())[-1]


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that is on its way back to the app."""

    session: Session
    app: App
    netloc: str
    app_session_hash: str
    target: str
    expires: float


@dataclass
class LocalAccess:
    """One running local Access.

    Attributes:
        config: What it is made of.
        state: What outlives it.
        clock: Its time.
        addresses: Where it listens.
        team: Who signs.
        certs: What serves the keys, rightly or wrongly.
        pending_logins: Logins on their way back, by nonce.
        fault: What the certs endpoint does wrong, as the control page calls it.
    """

    config: Config
    state: State
    clock: ShiftedClock
    addresses: Addresses
    team: Team = field(init=False)
    certs: CertsEndpoint = field(init=False)
    pending_logins: dict[str, PendingLogin] = field(default_factory=dict[str, PendingLogin])
    fault: str = ""

    def __post_init__(self) -> None:
        """Take or make the keys and the service secrets."""
        self.team = Team(self.addresses.issuer, config=self.config, state=self.state, clock=self.clock)
        self.certs = CertsEndpoint(self.team)
        for client_id, name in self.services.items():
            self.service_secret(client_id, name)

    def app_at(self, host: str, path: str) -> App | None:
        """Give the app whose path is the most specific one."""
        found = [
            (len(start), app)
            for app in self.config.apps
            if app.host == host
            for start in app.paths
            if _is_below(path, start)
        ]
        return max(found, key=lambda entry: entry[0])[1] if found else None

    def app_by_tag(self, tag: str) -> App | None:
        """Give the app with this AUD tag."""
        return next((app for app in self.config.apps if app.tag == tag), None)

    @property
    def services(self) -> dict[str, str]:
        """The names of the service tokens, by Client ID."""
        return {token.client_id or self.team.client_id(token.name): token.name for token in self.config.service_tokens}

    def service_secret(self, client_id: str, name: str) -> str:
        """Give the Client Secret of a service token."""
        given = next(token.client_secret for token in self.config.service_tokens if token.name == name)
        return given or self.state.client_secret(client_id)

    def authenticate_service(self, client_id: str, secret: str) -> str | None:
        """Give the name of the service token with these credentials."""
        name = self.services.get(client_id)
        if name is None or not secrets.compare_digest(self.service_secret(client_id, name).encode(), secret.encode()):
            return None
        return name

    def log_in(self, email: str, *, ip: str) -> Session:
        """Begin a session of the team."""
        now = self.clock.now()
        session = Session(random_nonce(), email, now, now + self.config.team.session, ip)
        self.state.add_session(session)
        return session

    def session_of(self, claims: Claims | None) -> Session | None:
        """Give the session of a token, where it has not ended."""
        session = self.state.sessions.get(str((claims or {}).get("identity_nonce")))
        return session if session and not session.ended and session.email == (claims or {}).get("email") else None

    def end_sessions(self, email: str, why: str) -> int:
        """End every session of a person, and tell how many there were."""
        ended = [session for session in self.state.sessions.values() if session.email == email and not session.ended]
        for session in ended:
            session.ended = why
        self.state.save()
        return len(ended)

    def add_pending_login(self, login: PendingLogin) -> str:
        """Keep a login until its browser is back at the app, and give its nonce."""
        now = self.clock.monotonic()
        self.pending_logins = {nonce: login for nonce, login in self.pending_logins.items() if login.expires > now}
        while len(self.pending_logins) >= MAX_NONCES:
            del self.pending_logins[next(iter(self.pending_logins))]
        nonce = secrets.token_urlsafe(24)
        self.pending_logins[nonce] = login
        return nonce


def _is_below(path: str, start: str) -> bool:
    return start in ("/", path) or path.startswith(start + "/")
