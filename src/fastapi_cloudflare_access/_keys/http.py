"""The default `Fetch`, by httpx, and the same by httpx2; no other module imports either."""

import asyncio
import logging
import re
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from fastapi_cloudflare_access._keys.document import FetchProblem, ProxyUsed, tls_problem
from fastapi_cloudflare_access._keys.environment import (
    CaCertificates,
    EnvironmentProblem,
    Proxy,
    ca_certificates,
    proxy_for,
)
from fastapi_cloudflare_access.protocols import Fetch, FetchResponse
from fastapi_cloudflare_access.settings import Settings

Library = Literal["httpx", "httpx2"]
"""The HTTP client: httpx2 continues httpx under a new name, with the same interface."""

CONNECT_TIMEOUT, READ_TIMEOUT = 2.0, 3.0
"""Seconds that the default fetch waits for a connection, and for each piece of the response."""
MANY_SOURCES = 10
"""Number of key sources for one URL at which a warning is logged."""

logger = logging.getLogger("fastapi_cloudflare_access.keys")

_sources: Counter[str] = Counter()
_BROKEN_OFF = re.compile("disconnected|closed connection")  # the wording of httpcore and h11


class _ProxyTimeout(ProxyUsed, TimeoutError):
    """No response in time, through a proxy."""


class _ProxyConnectionError(ProxyUsed, ConnectionError):
    """The connection failed, through a proxy."""


class HttpxFetch:
    """The default fetch: one client for each call, so that nothing belongs to an event loop."""

    def __init__(
        self,
        *,
        trust_env: bool,
        library: Library = "httpx",
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        """Store the options; the first fetch loads the library and the CA certificates in a thread."""
        self._trust_env = trust_env
        self._library: Library = library
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def __call__(self, url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        """Send a GET request that verifies TLS and follows no redirect.

        Raises:
            TimeoutError: The server did not connect or send in time.
            ConnectionError: The connection failed or was lost.
            FetchProblem: The response is not valid HTTP, or the proxy refuses to connect.
            EnvironmentProblem: The environment names a proxy or CA certificates that cannot be used.
        """
        proxy = proxy_for(url) if self._trust_env else None
        tls = self._tls or await self.load(url)
        httpx = _load(self._library)
        try:
            async with self._client(tls, proxy) as client, client.stream("GET", url, headers=headers) as response:
                answered = {name.lower(): value for name, value in response.headers.items()}
                yield FetchResponse(response.status_code, answered, response.aiter_raw())
        except httpx.TransportError as problem:
            if translated := _translated(problem, proxy, httpx):
                raise translated from problem
            raise

    async def load(self, url: str) -> ssl.SSLContext:
        """Load the HTTP client and the CA certificates in a thread, and return the TLS context.

        Raises:
            EnvironmentProblem: The environment names CA certificates that cannot be used.
        """
        encrypted = url.startswith("https:")
        self._tls = await asyncio.to_thread(
            load_tls, encrypted=encrypted, trust_env=self._trust_env, library=self._library
        )
        _count_sources(url)
        return self._tls

    def _client(self, tls: ssl.SSLContext, proxy: Proxy | None = None) -> Any:
        httpx = _load(self._library)
        timeout = httpx.Timeout(self._read_timeout, connect=self._connect_timeout)
        through = httpx_proxy(proxy, tls, self._library) if proxy else None
        return httpx.AsyncClient(verify=tls, trust_env=False, proxy=through, timeout=timeout, follow_redirects=False)


def _load(library: Library) -> Any:
    """Import an HTTP client; the import takes 100 ms, so that the first one is done in a thread."""
    if library == "httpx2":
        import httpx2  # noqa: PLC0415 - an extra

        return httpx2
    import httpx  # noqa: PLC0415 - not before the first fetch

    return httpx


async def prepare(fetch: Fetch, url: str) -> None:
    """Load what the first fetch needs, if this is the default fetch; an error is that of the fetch."""
    if isinstance(fetch, HttpxFetch):
        with suppress(EnvironmentProblem):
            await fetch.load(url)


def httpx_proxy(proxy: Proxy, tls: ssl.SSLContext | None = None, library: Library = "httpx") -> Any:
    """Return the proxy for the library; an `https` proxy is verified with the same CA certificates as the team.

    Raises:
        EnvironmentProblem: The library does not accept its URL.
    """
    httpx = _load(library)
    try:
        return httpx.Proxy(proxy.url, ssl_context=tls if proxy.url.lower().startswith("https:") else None)
    except (httpx.InvalidURL, ValueError):
        raise EnvironmentProblem(f"{proxy.source} is not a valid URL", f"correct or unset {proxy.source}") from None


def _translated(problem: Exception, proxy: Proxy | None, httpx: Any) -> Exception | None:
    """Return the error to raise for one of the library; None keeps that one."""
    if tls_problem(problem):
        return None
    if isinstance(problem, httpx.ProxyError) and proxy:
        status = re.match("[0-9]{3}", str(problem))
        answer = f" with HTTP status {status[0]}" if status else ""
        return FetchProblem(f"the proxy of {proxy.source} refuses to connect{answer}")
    if isinstance(problem, httpx.TimeoutException):
        return _ProxyTimeout(proxy.source) if proxy else TimeoutError()
    if isinstance(problem, httpx.RemoteProtocolError) and not _BROKEN_OFF.search(str(problem)):
        return FetchProblem("the response is not valid HTTP")
    if isinstance(problem, httpx.NetworkError | httpx.RemoteProtocolError):
        return _ProxyConnectionError(proxy.source) if proxy else ConnectionError()
    return None


def _count_sources(url: str) -> None:
    """Warn once if many key sources fetch one document: the app probably creates an object for each request."""
    _sources[url] += 1
    if _sources[url] == MANY_SOURCES:
        logger.warning(
            "cf-access found that %d CloudflareAccess objects of this process have fetched %s: make the "
            "object once, where the app is defined, and use access.with_audience(…) for other applications",
            MANY_SOURCES,
            url,
        )


def default_fetch(settings: Settings) -> Fetch:
    """Return the fetch for these settings; it ignores all proxies for a loopback team, since they could plant keys."""
    return HttpxFetch(trust_env=not settings.is_local)


def load_tls(*, encrypted: bool, trust_env: bool, library: Library = "httpx") -> ssl.SSLContext:
    """Return the TLS context; without a variable it trusts what the library trusts.

    Raises:
        EnvironmentProblem: The CA certificates that the environment names cannot be used.
    """
    httpx = _load(library)
    if not encrypted:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    given = ca_certificates() if trust_env else CaCertificates()
    try:
        if given.source == "SSL_CERT_FILE":
            return ssl.create_default_context(cafile=given.path)
        if given.source:
            return ssl.create_default_context(capath=given.path)
        context: ssl.SSLContext = httpx.create_ssl_context(trust_env=False)
    except OSError as problem:  # such as a log of keys that cannot be written
        why = problem.strerror or type(problem).__name__
        raise EnvironmentProblem(f"TLS cannot be set up ({why})", "check SSLKEYLOGFILE and SSL_CERT_FILE") from None
    return context
