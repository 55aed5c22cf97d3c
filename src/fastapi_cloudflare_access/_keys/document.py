"""Reading the certs document from any `Fetch`, within fixed limits, and describing why a fetch failed."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from importlib import metadata
from os import strerror
from socket import gaierror
from ssl import SSLError

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Fetch, FetchResponse
from fastapi_cloudflare_access.stores._problem import StoreProblem

OK, NOT_MODIFIED, NOT_FOUND = 200, 304, 404
MAX_DOCUMENT = 64 * 1024
"""Number of bytes that a certs document may have."""

_LENGTH = re.compile(r"[0-9]{1,18}")
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
_SECONDS = r"\s*=\s*\"?([0-9]{1,9})\"?\s*(?:,|$)"
_MAX_AGE = re.compile(r"(?:^|,)\s*max-age" + _SECONDS, re.IGNORECASE)
_NOT_FRESH = re.compile(r"(?:^|,)\s*no-(?:cache|store)\s*(?:,|=|$)", re.IGNORECASE)


class FetchProblem(Exception):
    """The response to a fetch is unusable; the message never quotes it.

    Attributes:
        retry_after: Seconds that the server asks to wait before the next fetch (RFC 9110 section 10.2.3); else 0.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Document:
    """An accepted response, not parsed yet.

    Attributes:
        body: The document; None after a 304.
        etag: The value for the next `If-None-Match`.
        max_age: Seconds for which the response is still fresh (RFC 9111 section 4.2).
    """

    body: bytes | None
    etag: str | None
    max_age: float | None


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
    headers = request_headers()
    if etag is not None:
        headers["If-None-Match"] = etag
    if no_cache:
        headers["Cache-Control"] = "no-cache"
    async with fetch(url, headers=headers) as response:
        if response.status == NOT_MODIFIED and etag is not None:
            return Document(None, etag, _max_age(response.headers))
        _check(response)
        body = await read_body(response, limit=MAX_DOCUMENT)
        return Document(body, _etag(response.headers), _max_age(response.headers))


def check_encoding(response: FetchResponse) -> None:
    """Check that the body is not encoded.

    Raises:
        FetchProblem: It is, which the request did not allow.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchProblem("a response with a content encoding, which the request did not allow")


async def read_body(response: FetchResponse, *, limit: int) -> bytes:
    """Read the body of a response, of at most `limit` bytes.

    Raises:
        FetchProblem: It is longer.
    """
    body = bytearray()
    async for piece in response.body:
        if len(body) + len(piece) > limit:
            raise FetchProblem(f"the document is longer than {limit} bytes")
        body += piece
    return bytes(body)


class ProxyUsed:
    """Mixin of the errors of a fetch that went through a proxy.

    Attributes:
        proxy: The variable that names the proxy.
    """

    def __init__(self, proxy: str) -> None:
        super().__init__()
        self.proxy = proxy


def describe(problem: BaseException) -> str:
    """Return why a fetch failed, in fixed words: none of them came over the network."""
    if isinstance(problem, FetchProblem | ConfigurationError):
        return str(problem)
    if isinstance(problem, ProxyUsed):
        return f"through the proxy of {problem.proxy}: {_describe_cause(problem)}"
    return _describe_cause(problem)


def describe_store(problem: BaseException) -> str:
    """Return why a store failed, in fixed words: none of them came over the network."""
    if isinstance(problem, StoreProblem | ConfigurationError):
        return str(problem)
    return _known_cause(problem) or f"it failed with {type(problem).__name__}"


def is_unexpected(problem: BaseException) -> bool:
    """Check whether only the type of an exception says why the fetch failed, such as a bug in the app's own `Fetch`."""
    return not isinstance(problem, FetchProblem | ConfigurationError) and _known_cause(problem) is None


def _describe_cause(problem: BaseException) -> str:
    return _known_cause(problem) or f"the fetch failed with {type(problem).__name__}"


def _known_cause(problem: BaseException) -> str | None:
    if tls := tls_problem(problem):
        reason = getattr(tls, "verify_message", None) or getattr(tls, "reason", None)
        return f"TLS failed: {reason or type(tls).__name__}{_ca_hint()}"
    if isinstance(problem, TimeoutError):
        return "no response in time"
    if errors := [link for link in _chain(problem) if isinstance(link, OSError) and type(link.errno) is int]:
        return "the host name was not found" if isinstance(errors[-1], gaierror) else _strerror(errors[-1].errno or 0)
    if isinstance(problem, ConnectionError):
        return "the connection failed or was lost"
    return None


def _strerror(number: int) -> str:
    try:
        return strerror(number)
    except OverflowError:  # an exception of the app
        return "an unknown system error"


def _ca_hint() -> str:
    """Return a note about the variable that names the CA certificates."""
    source = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
    return f"; {source} names the CA certificates that are trusted" if source else ""


def request_headers() -> dict[str, str]:
    """Return the headers of every fetch."""
    return {"User-Agent": _user_agent(), "Accept": "application/json", "Accept-Encoding": "identity"}


@cache
def _user_agent() -> str:
    try:
        return f"fastapi-cloudflare-access/{metadata.version('fastapi-cloudflare-access')}"
    except metadata.PackageNotFoundError:  # the package was copied into an app or frozen
        return "fastapi-cloudflare-access"


def _check(response: FetchResponse) -> None:
    if response.status != OK:
        status = int(response.status)
        raise FetchProblem(
            f"a response with HTTP status {status}{_hint(status)}", retry_after=_retry_after(response.headers)
        )
    check_encoding(response)
    length = response.headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length) or int(length) > MAX_DOCUMENT:
        raise FetchProblem(f"the document is longer than {MAX_DOCUMENT} bytes")


def _hint(status: int) -> str:
    if status == NOT_FOUND:
        return "; is team_domain right?"
    redirects = 300 <= status < 400 and status != NOT_MODIFIED  # noqa: PLR2004 - the class of redirects
    return "; redirects are not followed" if redirects else ""


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds of `Retry-After`; a date is compared with the `Date` of the same response."""
    value = headers.get("retry-after", "")[:64].strip()
    if _LENGTH.fullmatch(value):
        return float(value)
    try:
        until, sent = (parsedate_to_datetime(date) for date in (value, headers.get("date", "")[:64]))
        return max(0.0, (until - sent).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _etag(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("etag", "")
    return etag if _ETAG.fullmatch(etag) else None


def _max_age(headers: Mapping[str, str]) -> float | None:
    """Return `max-age` less `Age`; None without a `max-age` above 0, or with `no-cache` or `no-store`."""
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


def tls_problem(problem: BaseException) -> SSLError | None:
    """Return the TLS error among the causes of an error, or None."""
    return next((link for link in _chain(problem) if isinstance(link, SSLError)), None)
