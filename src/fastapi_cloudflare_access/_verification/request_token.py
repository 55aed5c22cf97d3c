"""Finding the token in the raw headers of a request; nothing of it is verified yet."""

import hashlib
from collections.abc import Collection, Iterator, Sequence

from fastapi_cloudflare_access.errors import AmbiguousToken, MalformedToken
from fastapi_cloudflare_access.settings import TokenSource

HEADER = "Cf-Access-Jwt-Assertion"
"""The header that Access sets on every request that it admits."""
COOKIE = "CF_Authorization"
"""The cookie that browsers send."""
MAX_COOKIES = 32 * 1024
"""Number of bytes of cookies that a request may have."""
MAX_MENTIONS = 16
"""Number of cookies of a request that may contain `CF_Authorization`, in the name or in the value."""
MAX_DIGESTED = 16 * 1024
"""Number of bytes of a token that its digest covers; some servers accept headers of megabytes."""

_HEADER = HEADER.lower().encode()
_COOKIE = COOKIE.encode()
_BLANKS = b" \t"
_NOT_READ = ("Authorization", "Cf-Access-Token", "Cf-Access-Client-Secret")
_CREDENTIALS = frozenset({_HEADER, b"authorization", b"cookie", b"cf-access-token", b"cf-access-client-secret"})

Headers = Collection[tuple[bytes, bytes]]


def find_token(headers: Headers, sources: Sequence[TokenSource]) -> bytes | None:
    """Return the one token of a request, or None if it carries none.

    If the request has the header, cookies are not read, even if the header is not valid. The edge of Access sets the
    header, while another site of the same domain can set a cookie.

    Spaces and tabs around a header's value are not part of it (RFC 9110 section 5.5), but some servers keep them.

    Raises:
        AmbiguousToken: For more than one header, or for cookies with different values.
        MalformedToken: For an empty header or cookie.
    """
    token = None
    if "header" in sources:
        for name, value in headers:
            if name == _HEADER:
                if token is not None:
                    raise AmbiguousToken("there is more than one assertion header")
                token = value.strip(_BLANKS)
    if token is None and "cookie" in sources:
        token = _cookie(headers)
    if token == b"":
        raise MalformedToken("the token is empty")
    return token


def is_from_header(headers: Headers, sources: Sequence[TokenSource]) -> bool:
    """Check whether a token of this request was read from the header."""
    return "header" in sources and any(name == _HEADER for name, _ in headers)


def unread_source(headers: Headers, sources: Sequence[TokenSource]) -> str | None:
    """Return a sentence about a request whose token is in the one place that is not read, or None."""
    if "cookie" not in sources and any(name == b"cookie" and _COOKIE in value for name, value in headers):
        return f"there is no token in the header; the cookie {COOKIE} is present, and token_sources does not read it"
    if is_from_header(headers, ("header",)) and "header" not in sources:
        return f"there is no token in the cookie; the header {HEADER} is present, and token_sources does not read it"
    return None


def other_credentials(headers: Headers) -> str:
    """Return a note about a header that carries a credential and is not read, for the log; else nothing."""
    names = {name for name, _ in headers}
    found = next((shown for shown in _NOT_READ if shown.lower().encode() in names), None)
    return f"; {found} is not read, since Access sends {HEADER}" if found else ""


def without_credentials(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers without the token in any place, `Authorization`, and the secret of a service token.

    Every cookie pair that contains the name of the token's cookie is removed, and the other cookies stay.
    """
    return [
        (b"cookie", others) if pair[0] == b"cookie" else pair  # pyright: ignore[reportPossiblyUnboundVariable]
        for pair in headers
        if pair[0] not in _CREDENTIALS or (pair[0] == b"cookie" and (others := _other_cookies(pair[1])))
    ]


def _other_cookies(jar: bytes) -> bytes:
    if _COOKIE not in jar:
        return jar
    if b";" not in jar:
        return b""
    return b";".join([pair for pair in jar.split(b";") if _COOKIE not in pair]).strip(_BLANKS)


def short_digest(token: bytes) -> str:
    """Return the digest that identifies a token in logs: 12 hex digits of the SHA-256 of its first 16 KiB."""
    return hashlib.sha256(token[:MAX_DIGESTED]).hexdigest()[:12]


def _cookie(headers: Headers) -> bytes | None:
    jars = [value for name, value in headers if name == b"cookie"]
    if sum(map(len, jars)) + len(jars) > MAX_COOKIES:
        raise MalformedToken("there are too many cookies")
    values: set[bytes] = set()
    for mentions, pair in enumerate(_mentioning(b";".join(jars))):
        if mentions == MAX_MENTIONS:
            raise MalformedToken("too many cookies contain the name of the token's cookie")
        name, _, value = pair.partition(b"=")
        if name.strip(_BLANKS) == _COOKIE:
            values.add(value.strip(_BLANKS))
    if len(values) > 1:
        raise AmbiguousToken("there is more than one cookie")
    return values.pop() if values else None


def _mentioning(jar: bytes) -> Iterator[bytes]:
    """Yield each `name=value` pair that contains the name of the cookie anywhere."""
    end = 0
    while (at := jar.find(_COOKIE, end)) >= 0:
        start = jar.rfind(b";", end, at) + 1
        end = jar.find(b";", at)
        if end < 0:
            end = len(jar)
        yield jar[start:end]
