"""The answer table of the contract as requests to one app: for each row what is sent, and what must come back."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, WebSocket
from support.options import grouped

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.testing import FORGERIES, CertsServer, FakeTeam, SystemClock
from fastapi_cloudflare_access.testing._issuer import Issuer

Team = FakeTeam[SystemClock]
Headers = list[tuple[str, str]]

HEADER, COOKIE = "Cf-Access-Jwt-Assertion", "CF_Authorization"
NOT_ACCEPTABLE = "The Cloudflare Access token is not acceptable"
CANNOT_TELL = "Cloudflare Access tokens cannot be checked right now, try again shortly"


@dataclass(frozen=True)
class Answer:
    """What the client is told where a request is refused.

    Attributes:
        status: The HTTP status code.
        detail: The body's one member.
        error: The OAuth error in `WWW-Authenticate`.
        described: Whether `detail` stands there too.
    """

    status: int
    detail: str
    error: str | None = None
    described: bool = True

    @property
    def challenge(self) -> str | None:
        if self.status == 503:
            return None
        error = f' error="{self.error}"' if self.error else ""
        return f"Cloudflare-Access{error}" + (
            f', error_description="{self.detail}"' if self.error and self.described else ""
        )

    @property
    def close_code(self) -> int:
        return 1013 if self.status == 503 else 1008


_UNACCEPTABLE = Answer(401, NOT_ACCEPTABLE, "invalid_token")
_NOT_ALLOWED = Answer(403, "This caller is not allowed here", "insufficient_scope", described=False)
ANSWERS = {
    "missing_token": Answer(401, "No Cloudflare Access token"),
    "ambiguous_token": Answer(401, "More than one Cloudflare Access token", "invalid_request"),
    "malformed_token": Answer(401, "The Cloudflare Access token is malformed", "invalid_token"),
    "unsupported_algorithm": _UNACCEPTABLE,
    "unknown_key": _UNACCEPTABLE,
    "invalid_signature": _UNACCEPTABLE,
    "invalid_claims": _UNACCEPTABLE,
    "wrong_issuer": _UNACCEPTABLE,
    "wrong_audience": _UNACCEPTABLE,
    "wrong_type": _UNACCEPTABLE,
    "token_expired": Answer(401, "The Cloudflare Access token has expired", "invalid_token"),
    "token_not_yet_valid": _UNACCEPTABLE,
    "wrong_caller": _NOT_ALLOWED,
    "forbidden": _NOT_ALLOWED,
    "keys_unavailable": Answer(503, CANNOT_TELL),
    "key_unconfirmed": Answer(503, CANNOT_TELL),
}
"""By reason code; `token_revoked` is not among them, for no token causes it yet."""


@dataclass(frozen=True)
class Row:
    """One situation.

    Attributes:
        name: Its name.
        reason: The reason code in the log.
        path: What is asked for.
        make: The headers it is asked with.
        has_digest: Whether there is one token that the log can name.
    """

    name: str
    reason: str
    path: str
    make: Callable[[Team], Headers]
    has_digest: bool = True

    @property
    def answer(self) -> Answer:
        return ANSWERS[self.reason]


def ada(team: Issuer) -> str:
    """The token of a user."""
    return team.user_token("ada@example.com")


def bot(team: Issuer) -> str:
    """The token of a service."""
    return team.service_token("deploy-bot")


def header(make: Callable[[Team], str]) -> Callable[[Team], Headers]:
    """Send this in the assertion header."""
    return lambda team: [(HEADER, make(team))]


def cookie(make: Callable[[Team], str]) -> Callable[[Team], Headers]:
    """Send this as the cookie."""
    return lambda team: [("Cookie", f"theme=dark; {COOKIE}={make(team)}; lang=en")]


def sent(*headers: tuple[str, str]) -> Callable[[Team], Headers]:
    """Send these headers."""
    return lambda _: list(headers)


def forged(name: str) -> Callable[[Team], str]:
    """A broken token."""
    return lambda team: team.forge(name)


def _doubled(team: Team) -> Headers:
    return [(HEADER, ada(team)), (HEADER, ada(team))]


def _two_cookies(team: Team) -> Headers:
    return [("Cookie", f"{COOKIE}={ada(team)}; {COOKIE}={bot(team)}")]


def _planted(team: Team) -> Headers:
    return [(HEADER, team.forge("wrong_key")), ("Cookie", f"{COOKIE}={ada(team)}")]


def _bearer(team: Team) -> Headers:
    return [("Authorization", f"Bearer {ada(team)}"), ("Cf-Access-Authenticated-User-Email", "ada@example.com")]


ROWS = [
    Row("nothing", "missing_token", "/access", sent(), has_digest=False),
    Row("nothing-user", "missing_token", "/user", sent(), has_digest=False),
    Row("nothing-service", "missing_token", "/service", sent(), has_digest=False),
    Row("nothing-forbidden", "missing_token", "/forbidden", sent(), has_digest=False),
    Row("bearer-and-email", "missing_token", "/access", _bearer, has_digest=False),
    Row(
        "other-cookies",
        "missing_token",
        "/access",
        sent(("Cookie", "theme=dark; cf_authorization=x")),
        has_digest=False,
    ),
    Row("two-headers", "ambiguous_token", "/access", _doubled, has_digest=False),
    Row("two-cookies", "ambiguous_token", "/access", _two_cookies, has_digest=False),
    Row("empty-header", "malformed_token", "/optional", sent((HEADER, "")), has_digest=False),
    Row("empty-cookie", "malformed_token", "/access", sent(("Cookie", f"{COOKIE}=")), has_digest=False),
    Row("bad-header-good-cookie", "invalid_signature", "/access", _planted),
    Row("expired-cookie", "token_expired", "/access", cookie(forged("expired"))),
    Row("user-for-service", "wrong_caller", "/service", header(ada)),
    Row("service-for-user", "wrong_caller", "/user", header(bot)),
    Row("service-for-user-cookie", "wrong_caller", "/user", cookie(bot)),
    Row("user-refused", "forbidden", "/forbidden", header(ada)),
    Row("service-refused", "forbidden", "/forbidden", header(bot)),
    Row("no-keys", "keys_unavailable", "/no-keys", header(ada)),
    Row("stale-keys", "keys_unavailable", "/stale", header(ada)),
    Row("lookup-fails", "key_unconfirmed", "/failing", header(forged("unknown_kid"))),
    Row("lookup-takes-too-long", "key_unconfirmed", "/hanging", header(forged("unknown_kid"))),
    *(
        Row(forgery.name, forgery.reason, "/optional", header(forged(forgery.name)), has_digest=forgery.name != "empty")
        for forgery in FORGERIES.values()
    ),
]


def digest(headers: Headers) -> str:
    """What the log calls the one token among these headers."""
    values = dict(reversed(headers))
    token = values.get(HEADER) or values["Cookie"].partition(f"{COOKIE}=")[2].partition(";")[0]
    return sha256(token.encode()[:16_384]).hexdigest()[:12]


def secrets(headers: Headers) -> list[str]:
    """What must not be found anywhere else: each piece of what was sent that says something."""
    pieces = " ".join(value for _, value in headers).replace(";", " ").replace("=", " ").replace(".", " ").split()
    return [piece for piece in pieces if len(piece) > 20]


@dataclass(frozen=True)
class Rig:
    """The app, and the teams whose tokens it takes.

    Attributes:
        app: Has each path of the table, for HTTP and for WebSockets.
        certs: Where the keys come from that can be had.
        teams: Of the paths for which they cannot.
    """

    app: FastAPI
    certs: CertsServer
    teams: dict[str, Team]

    def headers(self, row: Row) -> Headers:
        """What is sent for this row, signed by the team of its path."""
        return row.make(self.teams.get(row.path, self.team))

    @property
    def team(self) -> Team:
        return cast("Team", self.certs.team)


@contextmanager
def rig() -> Generator[Rig]:
    """Build the app of the table over certs servers of its own."""
    with ExitStack() as stack:
        certs = stack.enter_context(CertsServer(_team()))
        access = protector(certs, unknown_kid_burst=10, unknown_kid_interval=1)
        access.keys.seed(certs.team.certs_body(), fetched_at=time.time())
        nodes: dict[str, Any] = {
            "/access": access,
            "/user": access.user,
            "/service": access.service,
            "/optional": receiver(access.optional),
            "/forbidden": access.require(lambda _: False),
        }
        teams: dict[str, Team] = {}
        for path, age, fault in WITHOUT_KEYS:
            dark = stack.enter_context(CertsServer(_team()))
            fault(dark)
            nodes[path] = dark_access = protector(dark, key_wait_timeout=0.1)
            teams[path] = cast("Team", dark.team)
            if age is not None:
                dark_access.keys.seed(dark.team.certs_body(), fetched_at=time.time() - age)
        app = FastAPI(lifespan=access.lifespan)
        for path, node in nodes.items():
            app.add_api_route(path, _answer, dependencies=[Depends(node)])
            app.add_api_websocket_route(path, _converse, dependencies=[Depends(node)])
        yield Rig(app, certs, teams)


def receiver(node: Any) -> Callable[..., Any]:
    """Return a dependency of the app that receives the result of this one."""

    async def receive(caller: Any) -> None: ...

    receive.__annotations__["caller"] = Annotated[Any, Depends(node)]
    return receive


WITHOUT_KEYS: list[tuple[str, float | None, Callable[[CertsServer], None]]] = [
    ("/no-keys", None, CertsServer.fail_with),
    ("/stale", 2 * 86_400, CertsServer.fail_with),
    ("/failing", 0, CertsServer.fail_with),
    ("/hanging", 0, CertsServer.hang),
]
"""Path, seconds since the keys were fetched (None for no keys), and what is wrong with the certs server since."""


def protector(certs: CertsServer, **options: Any) -> CloudflareAccess[Any]:
    """What protects an app of this team."""
    given = grouped({"user_model": UserClaims, **options})
    return CloudflareAccess(team_domain=certs.origin, audience=certs.team.audience, **given)


def _team() -> Team:
    return FakeTeam("acme", clock=SystemClock())


async def _answer() -> str:
    return "let in"


async def _converse(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("let in")
    await socket.close()
