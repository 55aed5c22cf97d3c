"""A request to the edge, and the request headers for the app."""

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, unquote

from starlette.types import Scope

from fastapi_cloudflare_access._verification.request_token import COOKIE, HEADER

EMAIL_HEADER = "cf-access-authenticated-user-email"
TOKEN_HEADER = "cf-access-token"  # noqa: S105 - a name
ID_HEADER, SECRET_HEADER = "cf-access-client-id", "cf-access-client-secret"

MAX_TARGET = 8000
"""Most characters of an address to return to after a login."""
MAX_QUERY = 6 * MAX_TARGET
"""Most characters of a query; it holds such an address twice, quoted and in a token."""
MAX_FIELDS = 50
"""Most fields of a query or a form."""

RawHeaders = list[tuple[bytes, bytes]]

_NETLOC = re.compile(r"([a-z0-9.-]{1,253}|\[::1\])(?::([0-9]{1,5}))?")
_COOKIE = COOKIE.encode()
_NEVER_HOP_BY_HOP = frozenset({b"host", b"content-length", b"transfer-encoding"})
"""Headers that stay even if a `Connection` header names them."""
_HOP_BY_HOP = frozenset(
    {
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_SET_BY_THE_EDGE = frozenset(
    name.encode()
    for name in (
        HEADER.lower(),
        EMAIL_HEADER,
        TOKEN_HEADER,
        ID_HEADER,
        SECRET_HEADER,
        "cf-connecting-ip",
        "cf-ipcountry",
        "cf-ray",
        "cf-visitor",
        "cookie",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-real-ip",
    )
)


@dataclass(frozen=True)
class EdgeRequest:
    """One HTTP request or WebSocket handshake.

    Attributes:
        scope: ASGI scope.
    """

    scope: Scope

    @cached_property
    def netloc(self) -> str | None:
        """The `Host` header in lower case; None unless it is unique and valid."""
        hosts = self.get_all("host")
        return hosts[0].lower() if len(hosts) == 1 and _NETLOC.fullmatch(hosts[0].lower()) else None

    @property
    def host(self) -> str:
        """Host name without the port."""
        found = _NETLOC.fullmatch(self.netloc or "")
        return found[1] if found else ""

    @property
    def method(self) -> str:
        """Request method; `GET` for a handshake."""
        return str(self.scope.get("method", "GET"))

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "https" if self.scope["scheme"] in ("https", "wss") else "http"

    @property
    def is_websocket(self) -> bool:
        """Whether the request is a WebSocket handshake."""
        return bool(self.scope["type"] == "websocket")

    @cached_property
    def path(self) -> str:
        """Decoded path, without empty segments."""
        return "/" + "/".join(filter(None, self._segments))

    @property
    def is_ambiguous(self) -> bool:
        """Whether an app could read the target as another path than `path`, or as no path."""
        names = {segment.partition(";")[0] for segment in self._segments}
        is_path = self.target.startswith("/") and "#" not in self.target
        return not is_path or not names.isdisjoint({".", ".."}) or any("\\" in name for name in self._segments)

    @cached_property
    def _segments(self) -> list[str]:
        return unquote(self.target.partition("?")[0]).split("/")

    @cached_property
    def target(self) -> str:
        """Path and query, as the client sent them."""
        path: bytes = self.scope.get("raw_path") or self.scope["path"].encode()
        query: bytes = self.scope["query_string"]
        return (path.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")

    @cached_property
    def query(self) -> dict[str, str]:
        """First value of each parameter; empty if the query is too long."""
        text = self.target.partition("?")[2]
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS) if len(text) <= MAX_QUERY else []
        except ValueError:
            pairs = []
        return dict(reversed(pairs))

    @property
    def client_ip(self) -> str:
        """IP address of the client; empty if unknown."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    @property
    def is_preflight(self) -> bool:
        """Whether the request is a CORS preflight (Fetch standard, section 3.2.2)."""
        return self.method == "OPTIONS" and bool(self.get("origin") and self.get("access-control-request-method"))

    def get_all(self, name: str) -> list[str]:
        """Return every value of a header."""
        wanted = name.encode()
        return [value.decode("latin-1") for header, value in self.scope["headers"] if header == wanted]

    def get(self, name: str) -> str:
        """Return the first value of a header, or an empty string."""
        return next(iter(self.get_all(name)), "")

    def cookies(self, name: str) -> list[str]:
        """Return every value of a cookie; an attacker can add one."""
        pairs = (pair.partition("=") for jar in self.get_all("cookie") for pair in jar.split(";"))
        return [value.strip(" \t") for key, _, value in pairs if key.strip(" \t") == name]


def headers_for_app(
    request: EdgeRequest, *, ray: str, token: str | None, email: str | None, country: str, credential_header: str | None
) -> RawHeaders:
    """Return the request headers for the app.

    Args:
        request: The request.
        ray: Value of `cf-ray`.
        token: Application token; it replaces the client's own values.
        email: Address of the user.
        country: Country code of the caller.
        credential_header: Name of a header with service credentials, to remove.
    """
    received: RawHeaders = list(request.scope["headers"])
    dropped = (
        _SET_BY_THE_EDGE | (connection_options(received) - _NEVER_HOP_BY_HOP) | {(credential_header or "").encode()}
    )
    # CGI servers read `_` as `-`, so both spellings are removed.
    headers = [(name, value) for name, value in received if name.replace(b"_", b"-") not in dropped]
    if cookie := b"; ".join(_cookies(request, token)):
        headers.append((b"cookie", cookie))
    if token:
        headers.append((HEADER.lower().encode(), token.encode()))
    if email:
        headers.append((EMAIL_HEADER.encode(), email.encode()))
    return [*headers, *_edge_headers(request, ray, country)]


def new_ray() -> str:
    """Return a random `cf-ray` with the data centre `LOC`."""
    return f"{secrets.token_hex(8)}-LOC"


def connection_options(headers: RawHeaders) -> set[bytes]:
    """Return `connection` and the header names that it lists (RFC 9110 section 7.6.1)."""
    listed = b",".join([b"connection", *(value for name, value in headers if name.lower() == b"connection")])
    return {name.strip() for name in listed.lower().split(b",")}


def end_to_end(headers: RawHeaders) -> RawHeaders:
    """Remove hop-by-hop headers (RFC 9110 section 7.6.1) and `Expect`."""
    dropped = _HOP_BY_HOP | connection_options(headers) | {b"expect"}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _cookies(request: EdgeRequest, token: str | None) -> Iterator[bytes]:
    for pair in (pair for jar in request.get_all("cookie") for pair in jar.split(";")):
        name = pair.partition("=")[0].strip()
        is_replaced = name == "CF_Binding" or (name == COOKIE and token is not None)
        if name and not is_replaced:
            yield pair.strip().encode("latin-1")
    if token is not None:
        yield _COOKIE + b"=" + token.encode()


def _edge_headers(request: EdgeRequest, ray: str, country: str) -> Iterable[tuple[bytes, bytes]]:
    forwarded = ", ".join([*request.get_all("x-forwarded-for"), request.client_ip])
    headers = {
        "cf-connecting-ip": request.client_ip,
        "cf-ipcountry": country,
        "cf-ray": ray,
        "cf-visitor": f'{{"scheme":"{request.scheme}"}}',
        "x-forwarded-for": forwarded,
        "x-forwarded-proto": request.scheme,
        "x-real-ip": request.client_ip,
    }
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
