"""Fetching the certs document: the default `Fetch`, by httpx, and the limits that hold for every `Fetch`."""

import asyncio
import logging
import re
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from os import strerror
from socket import gaierror
from typing import TYPE_CHECKING

from fastapi_cloudflare_access.protocols import Fetch, FetchResponse
from fastapi_cloudflare_access.settings import Settings

if TYPE_CHECKING:
    import httpx

OK, NOT_MODIFIED, NOT_FOUND = 200, 304, 404
CONNECT_TIMEOUT, READ_TIMEOUT = 2.0, 3.0
"""Seconds that the default fetch waits for a connection, and for each piece of the answer."""
MAX_DOCUMENT = 64 * 1024
"""Number of bytes that a certs document may have."""

MANY_SOURCES = 10
"""Number of key sources for one URL at which a warning is logged."""

logger = logging.getLogger("fastapi_cloudflare_access.keys")

_sources: Counter[str] = Counter()
_LENGTH = re.compile(r"[0-9]{1,18}")
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
_SECONDS = r"\s*=\s*\"?([0-9]{1,9})\"?\s*(?:,|$)"
_MAX_AGE = re.compile(r"(?:^|,)\s*max-age" + _SECONDS, re.IGNORECASE)
_BROKEN_OFF = re.compile("disconnected|closed connection")  # the wording of httpcore and h11
_NOT_FRESH = re.compile(r"(?:^|,)\s*no-(?:cache|store)\s*(?:,|=|$)", re.IGNORECASE)


class FetchProblem(Exception):
    """The response to a fetch is unusable; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class Document:
    """The result of a successful fetch.

    Attributes:
        body: The document; None after a 304.
        etag: The value for the next `If-None-Match`.
        max_age: Seconds for which the response is still fresh (RFC 9111 section 4.2).
    """

    body: bytes | None
    etag: str | None
    max_age: float | None


class HttpxFetch:
    """The default fetch: one httpx client for each call, so that nothing belongs to an event loop."""

    def __init__(
        self, *, trust_env: bool, connect_timeout: float = CONNECT_TIMEOUT, read_timeout: float = READ_TIMEOUT
    ) -> None:
        """Store the options; the first fetch loads httpx and the CA certificates in a thread."""
        self._trust_env = trust_env
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def __call__(self, url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        """Send a GET request that verifies TLS and follows no redirect.

        Raises:
            TimeoutError: The server did not connect or send in time.
            ConnectionError: The connection failed or was lost.
            FetchProblem: The response is not valid HTTP, or the CA certificates cannot be read.
        """
        if self._tls is None:
            _count_sources(url)
            self._tls = await asyncio.to_thread(
                _load_tls, encrypted=url.startswith("https:"), trust_env=self._trust_env
            )
        import httpx  # noqa: PLC0415 - the import takes 100 ms; a thread has done it by now

        try:
            async with self._client(self._tls) as client, client.stream("GET", url, headers=headers) as response:
                answered = {name.lower(): value for name, value in response.headers.items()}
                yield FetchResponse(response.status_code, answered, response.aiter_raw())
        except httpx.TimeoutException as problem:
            raise TimeoutError from problem
        except (httpx.NetworkError, httpx.RemoteProtocolError) as problem:
            if _tls_problem(problem):
                raise
            if isinstance(problem, httpx.RemoteProtocolError) and not _BROKEN_OFF.search(str(problem)):
                raise FetchProblem("the answer is no valid HTTP") from problem
            raise ConnectionError from problem

    def _client(self, tls: ssl.SSLContext) -> "httpx.AsyncClient":
        import httpx  # noqa: PLC0415 - as above

        timeout = httpx.Timeout(self._read_timeout, connect=self._connect_timeout)
        return httpx.AsyncClient(verify=tls, trust_env=self._trust_env, timeout=timeout, follow_redirects=False)


def _count_sources(url: str) -> None:
    """Warn once if many key sources fetch one document: the app probably creates an object for each request."""
    _sources[url] += 1
    if _sources[url] == MANY_SOURCES:
        logger.warning(
            "%d CloudflareAccess objects of this process have fetched %s: make the object once, where the app is "
            "defined, and use access.with_audience(…) for other applications",
            MANY_SOURCES,
            url,
        )


def default_fetch(settings: Settings) -> Fetch:
    """Return the fetch for these settings; it ignores all proxies for a loopback team, since they could plant keys."""
    return HttpxFetch(trust_env=not settings.is_local)


async def read_document(fetch: Fetch, url: str, *, etag: str | None, no_cache: bool) -> Document:
    """Fetch a document: accept 200 and 304, no content encoding, and at most `MAX_DOCUMENT` bytes.

    Args:
        fetch: The function that fetches.
        url: The URL of the document.
        etag: The ETag of the current document; the response may then be 304.
        no_cache: Whether caches on the way must ask the origin.

    Raises:
        FetchProblem: The response is unusable.
        Exception: Any exception of `fetch`.
    """
    async with fetch(url, headers=_request_headers(etag, no_cache=no_cache)) as response:
        if response.status == NOT_MODIFIED and etag is not None:
            return Document(None, etag, _max_age(response.headers))
        _check(response)
        body = bytearray()
        async for piece in response.body:
            if len(body) + len(piece) > MAX_DOCUMENT:
                raise FetchProblem(f"the document is longer than {MAX_DOCUMENT} bytes")
            body += piece
        return Document(bytes(body), _etag(response.headers), _max_age(response.headers))


def describe(problem: BaseException) -> str:
    """Return why a fetch failed, in fixed words: none of them came over the network."""
    if isinstance(problem, FetchProblem):
        return str(problem)
    if tls := _tls_problem(problem):
        reason = getattr(tls, "verify_message", None) or getattr(tls, "reason", None)
        return f"TLS failed: {reason or type(tls).__name__}"
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if errors := [link for link in _chain(problem) if isinstance(link, OSError) and type(link.errno) is int]:
        return "the host name was not found" if isinstance(errors[-1], gaierror) else strerror(errors[-1].errno or 0)
    if isinstance(problem, ConnectionError):
        return "the connection failed or was lost"
    return f"the fetch failed with {type(problem).__name__}"


def _load_tls(*, encrypted: bool, trust_env: bool) -> ssl.SSLContext:
    import httpx  # noqa: PLC0415 - loaded here so that it is not on the event loop

    try:
        return httpx.create_ssl_context(trust_env=trust_env) if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError:
        raise FetchProblem("the CA certificates cannot be read; see SSL_CERT_FILE and SSL_CERT_DIR") from None


def _request_headers(etag: str | None, *, no_cache: bool) -> dict[str, str]:
    headers = {"User-Agent": _user_agent(), "Accept": "application/json", "Accept-Encoding": "identity"}
    if etag is not None:
        headers["If-None-Match"] = etag
    if no_cache:
        headers["Cache-Control"] = "no-cache"
    return headers


@cache
def _user_agent() -> str:
    try:
        return f"fastapi-cloudflare-access/{metadata.version('fastapi-cloudflare-access')}"
    except metadata.PackageNotFoundError:  # the package was copied into an app or frozen
        return "fastapi-cloudflare-access"


def _check(response: FetchResponse) -> None:
    if response.status != OK:
        raise FetchProblem(f"an answer with HTTP status {int(response.status)}{_hint(response.status)}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchProblem("an encoded answer, which was not asked for")
    length = response.headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length) or int(length) > MAX_DOCUMENT:
        raise FetchProblem(f"the document is longer than {MAX_DOCUMENT} bytes")


def _hint(status: int) -> str:
    if status == NOT_FOUND:
        return "; is team_domain right?"
    redirects = 300 <= status < 400 and status != NOT_MODIFIED  # noqa: PLR2004 - the class of redirects
    return "; redirects are not followed" if redirects else ""


def _etag(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("etag", "")
    return etag if _ETAG.fullmatch(etag) else None


def _max_age(headers: Mapping[str, str]) -> float | None:
    """Return `max-age` less `Age`; None if the response must not be cached at all."""
    control, age = headers.get("cache-control", "")[:1024], headers.get("age", "0")
    found = _MAX_AGE.search(control)
    if found is None or not int(found[1]) or _NOT_FRESH.search(control):
        return None
    return max(0.0, int(found[1]) - (float(age) if _LENGTH.fullmatch(age) else 0.0))


def _chain(problem: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while problem is not None and len(chain) < 10:  # noqa: PLR2004 - no chain is longer, and a loop ends
        chain.append(problem)
        problem = problem.__cause__ or problem.__context__
    return chain


def _tls_problem(problem: BaseException) -> ssl.SSLError | None:
    return next((link for link in _chain(problem) if isinstance(link, ssl.SSLError)), None)
