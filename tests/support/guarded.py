"""An app behind the guard, and the requests that must not get past it."""

from typing import Any, NamedTuple

from fastapi import APIRouter, FastAPI, WebSocket
from starlette.responses import PlainTextResponse

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.guard import AccessGuard

SECRET = b"a secret"
OPEN = b"open to all"
EXEMPT = ["/health", "/inner/health", "/nested/health"]


def make(access: CloudflareAccess[Any]) -> FastAPI:
    """Return an app with routes, WebSockets, mounts and a guarded mount, all behind a guard."""
    app = FastAPI(lifespan=access.lifespan)
    _add_routes(app)
    inner, nested = FastAPI(), APIRouter(prefix="/nested")
    _add_routes(inner)
    _add_routes(nested)
    app.include_router(nested)
    app.mount("/inner", inner)
    app.mount("/files", PlainTextResponse(SECRET))
    app.add_middleware(AccessGuard, access=access, exempt=EXEMPT)
    return app


def make_mounts(access: CloudflareAccess[Any]) -> FastAPI:
    """Return an app without a guard, in which a guarded app is mounted."""
    app = FastAPI(lifespan=access.lifespan, openapi_url=None)
    inner = FastAPI()
    _add_routes(inner)
    app.mount("/mounted", AccessGuard(inner, access=access, exempt=["/health"]))
    return app


def _add_routes(app: FastAPI | APIRouter) -> None:
    app.add_api_route("/health", lambda: PlainTextResponse(OPEN), response_model=None)
    for path in ("/", "/admin", "/health/admin", "/healthy", "/HEALTH"):
        app.add_api_route(path, lambda: PlainTextResponse(SECRET), response_model=None)
    app.add_api_websocket_route("/health", _talk)
    app.add_api_websocket_route("/feed", _talk)


async def _talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(SECRET.decode())
    await socket.close()


class Attack(NamedTuple):
    """A request without a token, to be written to a socket as it is.

    Attributes:
        target: The request target.
        fields: Header lines.
        method: The method.
        host: The `Host` header.
    """

    target: bytes
    fields: tuple[bytes, ...] = ()
    method: bytes = b"GET"
    host: bytes = b"app.example.com"

    @property
    def request(self) -> bytes:
        """The bytes of the request; the server closes the connection after its response."""
        lines = [self.method + b" " + self.target + b" HTTP/1.1", b"Host: " + self.host, b"Connection: close"]
        return b"\r\n".join([*lines, *self.fields, b"", b""])

    def __str__(self) -> str:
        return repr(b" ".join([self.method, self.target, self.host, *self.fields]))[2:80]


TARGETS = [
    # the documentation, and what looks like it
    b"/docs",
    b"//docs",
    b"/docs/",
    b"/docs%2f",
    b"/docs%2F",
    b"/DOCS",
    b"/redoc",
    b"/openapi.json",
    b"/docs/oauth2-redirect",
    # paths that begin with, or resolve from, an exempt path
    b"/health/",
    b"//health",
    b"/health//",
    b"/health/admin",
    b"/health/../admin",
    b"/health/..%2fadmin",
    b"/health/%2e%2e/admin",
    b"/health%2f..%2fadmin",
    b"/health/.",
    b"/./health",
    b"/admin/../health",
    b"/health;x",
    b"/health;/../admin",
    b"/health%3b",
    b"/health%20",
    b"/health%00",
    b"/health%0a",
    b"/health%0d%0ax",
    b"/health%3f",
    b"/health%23",
    b"/health\\..\\admin",
    b"/health%5c..%5cadmin",
    b"/healthy",
    b"/HEALTH",
    b"/Health",
    b"/health%c0%af",
    b"/health%ff",
    b"/%2fhealth",
    b"/%252fhealth",
    b"/health%252f",
    b"/h%65althy",
    # other apps
    b"/",
    b"/admin",
    b"/admin?/health",
    b"/admin#/health",
    b"/inner/",
    b"/inner",
    b"/inner/admin",
    b"/inner//health",
    b"/inner/health/",
    b"/inner/../health/admin",
    b"/inner/inner/health",
    b"/inner/docs",
    b"/nested/admin",
    b"/nested//health",
    b"/files/health",
    b"/files/a.css",
    b"/files/%2e%2e/health",
    b"/feed",
    b"/nothing",
    # other forms of a target
    b"http://app.example.com/admin",
    b"http://app.example.com/health/admin",
    b"http://health/admin",
    b"http://x/health/../admin",
    b"https://app.example.com/admin",
    b"http:/admin",
    b"http:///admin",
    b"http://x",
]
SPOOFED = [
    b"X-Forwarded-Path: /health",
    b"X-Forwarded-Uri: /health",
    b"X-Forwarded-Prefix: /admin",
    b"X-Forwarded-Host: app.example.com/health",
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Method: OPTIONS",
    b"X-Original-URL: /health",
    b"X-Rewrite-URL: /health",
    b"X-Original-Method: OPTIONS",
    b"X-HTTP-Method-Override: OPTIONS",
    b"X-Script-Name: /admin",
    b"Script-Name: /admin",
    b"X-Root-Path: /admin",
    b"Forwarded: for=127.0.0.1;host=app.example.com;proto=https",
    b"Cf-Access-Authenticated-User-Email: ada@example.com",
    b"Cf-Access-Jwt-Assertion: a.b.c",
    b"Cf-Connecting-Ip: 127.0.0.1",
    b"Authorization: Basic YWRhOmFkYQ==",
    b"Cookie: CF_Authorization=a.b.c",
    b"Origin: https://app.example.com",
    b"Accept: text/html",
    b"Content-Length: 0",
]
HOSTS = [
    b"app.example.com/health?",
    b"health",
    b"app.example.com/health#",
    b"localhost",
    b"127.0.0.1",
    b"x/health\\@y",
    b"",
]
METHODS = [b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND"]
PREFLIGHT = (b"Origin: https://app.example.com", b"Access-Control-Request-Method: GET")

ATTACKS = [
    *(Attack(target) for target in TARGETS),
    *(Attack(b"/admin", (field,)) for field in SPOOFED),
    *(Attack(b"/admin", host=host) for host in HOSTS),
    *(Attack(b"/admin", method=method) for method in METHODS),
    Attack(b"/admin", PREFLIGHT, b"OPTIONS"),
    Attack(b"*", method=b"OPTIONS"),
]
MOUNTED = [Attack(b"/mounted" + target) for target in TARGETS if target.startswith(b"/")]

HANDSHAKE = (
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def handshake(target: bytes, *fields: bytes, host: bytes = b"app.example.com") -> bytes:
    """Return the bytes of a WebSocket handshake."""
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: " + host, *HANDSHAKE, *fields, b"", b""])
