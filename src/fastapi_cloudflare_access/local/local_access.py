"""The configuration and state of one running local Access."""

import secrets
from dataclasses import dataclass, field, replace

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.local.config import TEAM_HOST, App, Config
from fastapi_cloudflare_access.local.state import Session, State
from fastapi_cloudflare_access.local.team import Claims, Team, random_nonce
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.testing import CertsEndpoint

RENAMED = "-renamed"
RENAMED_HOST = "[::1]"
"""Host of the team after a renaming, unless it has a team domain."""
NONCE_LIFETIME = 60.0
"""Seconds that a pending login is valid."""
MAX_NONCES = 1000
"""Most pending logins; the oldest is removed first."""


class ShiftedClock:
    """The computer's clock, with the shift that the control page sets."""

    def __init__(self, base: Clock | None = None) -> None:
        """Store the clock to shift; by default the computer's."""
        self._base = base or SystemClock()
        self.shift = 0.0

    def now(self) -> float:
        """Return the shifted time, in seconds since 1970."""
        return self._base.now() + self.shift

    def machine_now(self) -> float:
        """Return the unshifted time, which browsers use for cookies."""
        return self._base.now()

    def monotonic(self) -> float:
        """Return monotonic seconds, without the shift."""
        return self._base.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        await self._base.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of the local Access.

    Attributes:
        port: Port for HTTP.
        tls_port: Port for HTTPS, or None.
        domain: Configured team domain, or None.
        is_renamed: Whether the team has its second name.
    """

    port: int
    tls_port: int | None = None
    domain: str | None = None
    is_renamed: bool = False

    @property
    def issuer(self) -> str:
        """Team domain, as an origin."""
        if self.domain:
            return f"https://{renamed_domain(self.domain) if self.is_renamed else self.domain}"
        return f"http://{RENAMED_HOST if self.is_renamed else TEAM_HOST}:{self.port}"

    @property
    def team_hosts(self) -> frozenset[str]:
        """Hosts of the team, under both of its names."""
        names = {self.domain, renamed_domain(self.domain)} if self.domain else {RENAMED_HOST}
        return frozenset({TEAM_HOST, *names})

    @property
    def transfer_host(self) -> str | None:
        """Host that cloudflared fetches its tokens from; None without a team domain."""
        return transfer_host(self.domain)

    def is_former(self, host: str) -> bool:
        """Return whether the host is a name that the team does not have now."""
        other = replace(self, is_renamed=not self.is_renamed)
        return host == other.issuer.partition("://")[2].removesuffix(f":{self.port}")

    def netloc(self, host: str, *, scheme: str = "http") -> str:
        """Return the host, with the port unless it is the scheme's default."""
        port = self.tls_port if scheme == "https" else self.port
        return host if port == {"http": 80, "https": 443}[scheme] else f"{host}:{port}"

    def origins(self, host: str) -> dict[str, str]:
        """Return the origins of a host, by netloc."""
        schemes = ("http", "https") if self.tls_port else ("http",)
        return {
            self.netloc(host, scheme=scheme): f"{scheme}://{self.netloc(host, scheme=scheme)}" for scheme in schemes
        }

    def origin(self, host: str) -> str:
        """Return the origin of a host, with HTTPS if it is served."""
        return list(self.origins(host).values())[-1]


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login before the redirect to its app; `expires` is a monotonic time."""

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
        config: Configuration.
        state: Keys, secrets and sessions.
        clock: Clock of the team.
        addresses: Addresses that it listens on.
        team: Issuer of the tokens.
        certs: Certs endpoint of the team.
        pending_logins: Pending logins, by nonce.
        fault: Name of the fault of `certs`; empty without one.
        transfers: Encrypted tokens for cloudflared and the key to open them with, by cloudflared's public key.
    """

    config: Config
    state: State
    clock: ShiftedClock
    addresses: Addresses
    team: Team = field(init=False)
    certs: CertsEndpoint = field(init=False)
    pending_logins: dict[str, PendingLogin] = field(default_factory=dict[str, PendingLogin])
    fault: str = ""
    transfers: dict[bytes, tuple[bytes, str]] = field(default_factory=dict[bytes, tuple[bytes, str]])

    def __post_init__(self) -> None:
        """Load the keys and service secrets, and create missing ones."""
        self.team = Team(self.addresses.issuer, config=self.config, state=self.state, clock=self.clock)
        self.certs = CertsEndpoint(self.team)
        for client_id, name in self.services.items():
            self.service_secret(client_id, name)

    def rename(self) -> None:
        """Rename the team; tokens carry the old name until `team.issuer` changes too."""
        self.addresses = replace(self.addresses, is_renamed=True)
        self.team.own_issuers = frozenset({self.team.issuer, self.addresses.issuer})

    def restore_name(self) -> None:
        """Restore the first name of the team."""
        self.addresses = replace(self.addresses, is_renamed=False)
        self.team.issuer = self.addresses.issuer

    def app_at(self, host: str, path: str) -> App | None:
        """Return the app with the most specific path, or None."""
        found = [
            (len(start), app)
            for app in self.config.apps
            if app.host == host
            for start in app.paths
            if _is_below(path, start)
        ]
        return max(found, key=lambda entry: entry[0])[1] if found else None

    def app_by_tag(self, tag: str) -> App | None:
        """Return the app with this AUD tag, or None."""
        return next((app for app in self.config.apps if app.tag == tag), None)

    @property
    def services(self) -> dict[str, str]:
        """Names of the service tokens, by Client ID."""
        return {token.client_id or self.team.client_id(token.name): token.name for token in self.config.service_tokens}

    def service_secret(self, client_id: str, name: str) -> str:
        """Return the Client Secret of a service token."""
        given = next(token.client_secret for token in self.config.service_tokens if token.name == name)
        return given or self.state.client_secret(client_id)

    def authenticate_service(self, client_id: str, secret: str) -> str | None:
        """Return the name of the service token with these credentials, or None."""
        name = self.services.get(client_id)
        if name is None or not secrets.compare_digest(self.service_secret(client_id, name).encode(), secret.encode()):
            return None
        return name

    def log_in(self, email: str, *, ip: str) -> Session:
        """Create a session for the user with this address."""
        now = self.clock.now()
        session = Session(random_nonce(), email, now, now + self.config.team.session, ip)
        self.state.add_session(session)
        return session

    def session_of(self, claims: Claims | None) -> Session | None:
        """Return the session of a token, or None if it has ended."""
        session = self.state.sessions.get(str((claims or {}).get("identity_nonce")))
        return session if session and not session.ended and session.email == (claims or {}).get("email") else None

    def end_sessions(self, email: str, reason: str) -> int:
        """End every session of a user, and return the number of them."""
        ended = [session for session in self.state.sessions.values() if session.email == email and not session.ended]
        for session in ended:
            session.ended = reason
        self.state.save()
        return len(ended)

    def add_pending_login(self, login: PendingLogin) -> str:
        """Store a pending login, and return its nonce."""
        now = self.clock.monotonic()
        self.pending_logins = {nonce: login for nonce, login in self.pending_logins.items() if login.expires > now}
        while len(self.pending_logins) >= MAX_NONCES:
            del self.pending_logins[next(iter(self.pending_logins))]
        nonce = secrets.token_urlsafe(24)
        self.pending_logins[nonce] = login
        return nonce


def renamed_domain(domain: str) -> str:
    """Return the second name of a team domain: `acme-renamed.cloudflareaccess.com`."""
    label, _, rest = domain.partition(".")
    return f"{label[: 63 - len(RENAMED)]}{RENAMED}.{rest}"


def transfer_host(domain: str | None) -> str | None:
    """Return the host of the transfer store that belongs to a team domain, as cloudflared has it."""
    if domain is None:
        return None
    return "login.fed.cloudflareaccess.org" if ".fed." in domain else "login.cloudflareaccess.org"


def _is_below(path: str, start: str) -> bool:
    return start in ("/", path) or path.startswith(start + "/")
