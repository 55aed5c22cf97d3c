"""Attacks by the request around the token: which header, which cookie, how often, how large, how written."""

from collections.abc import Iterator
from dataclasses import dataclass

from attacks.wire import HEADER, request

MISSING, AMBIGUOUS, MALFORMED = (401, "missing_token"), (401, "ambiguous_token"), (401, "malformed_token")
IN, REFUSED_BY_SERVER = (200, ""), (400, "")
COOKIE = b"CF_Authorization"
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Odd:
    """One odd request.

    Attributes:
        name: What is odd about it.
        data: Its bytes.
        answer: Status and reason code, or for each kind of server its own.
        head: Whether the answer has no body.
    """

    name: str
    data: bytes
    answer: tuple[int, str] | dict[str, tuple[int, str]]
    head: bool = False


def header(token: bytes) -> bytes:
    return HEADER + b": " + token


def cookie(*values: bytes) -> bytes:
    return b"Cookie: " + b"; ".join(COOKIE + b"=" + value for value in values)


def odd_requests(good: bytes, other: bytes, bad: bytes) -> Iterator[Odd]:
    """Give each, made with two tokens that are let in alone, and one that is not."""
    yield from doubled(good, other, bad)
    yield from elsewhere(good)
    yield from cookies(good, other, bad)
    yield from written(good)
    yield from large(good)
    yield from methods(good)


def doubled(good: bytes, other: bytes, bad: bytes) -> Iterator[Odd]:
    pairs = {"the same": (good, good), "two callers": (good, other), "good and bad": (good, bad)}
    pairs |= {"bad and good": (bad, good), "good and empty": (good, b""), "empty and good": (b"", good)}
    for name, (first, second) in pairs.items():
        yield Odd(f"two headers: {name}", request(header(first), header(second)), AMBIGUOUS)
        fields = (header(first), b"Accept: */*", header(second).lower().replace(second.lower(), second))
        yield Odd(f"two headers apart and in other case: {name}", request(*fields), AMBIGUOUS)
    yield Odd("nine headers", request(*[header(good)] * 9), AMBIGUOUS)
    yield Odd("two headers and a cookie", request(header(good), header(good), cookie(good)), AMBIGUOUS)


def elsewhere(good: bytes) -> Iterator[Odd]:
    for name in (b"Authorization", b"Proxy-Authorization", b"X-Authorization", b"X-Forwarded-Authorization"):
        for scheme in (b"Bearer ", b"Cloudflare-Access ", b"JWT ", b""):
            yield Odd(f"{name.decode()} {scheme.decode()}", request(name + b": " + scheme + good), MISSING)
    for name in (
        *(b"Cf_Access_Jwt_Assertion", b"Cf-Access_Jwt_Assertion", b"X-Cf-Access-Jwt-Assertion", b"Cf-Access-Jwt"),
        *(
            b"Cf-Access-Jwt-Assertion-2",
            b"Cf-Access-Token",
            b"Cf-Authorization",
            b"CF_Authorization",
            b"X-Jwt-Assertion",
        ),
        *(b"Cf-Access-Metadata", b"X-Original-Cf-Access-Jwt-Assertion", b"HTTP_CF_ACCESS_JWT_ASSERTION", b"Cookie2"),
        *(b"Set-Cookie", b"X-Amzn-Oidc-Data", b"X-Goog-Iap-Jwt-Assertion", b"Cf-Access-Client-Id", b"Jwt", b"Token"),
    ):
        yield Odd(f"in {name.decode()}", request(name + b": " + good), MISSING)
    for name in (b"Cf-Access-Authenticated-User-Email", b"X-Forwarded-User", b"X-Remote-User", b"Cf-Connecting-Ip"):
        yield Odd(f"only {name.decode()}", request(name + b": root@example.com"), MISSING)
    for path in (b"/?jwt=", b"/?token=", b"/?access_token=", b"/?cf-access-jwt-assertion="):
        yield Odd(f"in the query {path.decode()}", request(path=path + b"A.A.A"), MISSING)  # servers log the query
    for host in (
        b"X-Forwarded-Host: localhost",
        b"X-Forwarded-For: 127.0.0.1",
        b"Forwarded: for=127.0.0.1",
        b"Via: 1.1 x",
    ):
        yield Odd(f"as if from nearby: {host.decode()}", request(host), MISSING)
    form = b"CF_Authorization=" + good
    length = b"Content-Length: %d" % len(form)
    yield Odd("in the body", request(length, method=b"POST", body=form), MISSING)
    trailer = b"1\r\nx\r\n0\r\n" + header(good) + b"\r\n\r\n"
    doubled_there = {"h11": IN, "hypercorn": IN, "httptools": AMBIGUOUS}
    chunked = (b"Transfer-Encoding: chunked", b"Trailer: " + HEADER)
    merged = {"h11": MISSING, "hypercorn": MISSING, "httptools": IN}  # uvicorn hands trailers on as headers
    yield Odd("in a trailer", request(*chunked, method=b"POST", body=trailer), merged)
    yield Odd("in a header and a trailer", request(header(good), *chunked, method=b"POST", body=trailer), doubled_there)


def cookies(good: bytes, other: bytes, bad: bytes) -> Iterator[Odd]:
    octal = b'"' + good.replace(b".", rb"\056") + b'"'
    yield Odd("the cookie", request(cookie(good)), IN)
    yield Odd("the cookie twice", request(cookie(good, good)), IN)
    yield Odd("the cookie with spaces around", request(b"Cookie: a=b;  CF_Authorization = " + good + b" ;c=d"), IN)
    for name, values in {
        "two callers": (good, other),
        "good and bad": (good, bad),
        "bad and good": (bad, good),
    }.items():
        yield Odd(f"two cookies: {name}", request(cookie(*values)), AMBIGUOUS)
        apart = request(*(cookie(value) for value in values))
        yield Odd(f"two cookie headers: {name}", apart, AMBIGUOUS)
    yield Odd("a cookie and an empty one", request(cookie(good, b"")), AMBIGUOUS)
    yield Odd("one of forty is different", request(cookie(*[good] * 10, other)), AMBIGUOUS)
    for name, value in {
        "quoted": b'"' + good + b'"',
        "quoted with octal dots": octal,
        "percent-encoded": good.replace(b".", b"%2E"),
        "empty": b"",
        "with an equals sign": b"=" + good,
        "with a comma": good + b"," + good,
    }.items():
        yield Odd(f"cookie {name}", request(cookie(value)), MALFORMED)
    yield Odd("a cookie without a value", request(b"Cookie: CF_Authorization"), MALFORMED)
    for other_name in (
        b"cf_authorization",
        b"CF_AUTHORIZATION",
        b"CF-Authorization",
        b"CF_Authorization2",
        b"xCF_Authorization",
    ):
        yield Odd(f"a cookie {other_name.decode()}", request(b"Cookie: " + other_name + b"=" + good), MISSING)
    for other_name in (
        b"__Host-CF_Authorization",
        b"__Secure-CF_Authorization",
        b"CF_AppSession",
        b"CF_Session",
        b'"CF_Authorization"',
    ):
        yield Odd(f"a cookie {other_name.decode()}", request(b"Cookie: " + other_name + b"=" + good), MISSING)
    yield Odd("cookies with commas", request(b"Cookie: a=b, CF_Authorization=" + good), MISSING)
    yield Odd("a cookie inside a quoted one", request(b'Cookie: a="x CF_Authorization=' + good + b'"'), MISSING)
    yield Odd(
        "a cookie behind a quoted semicolon", request(b'Cookie: a="x; CF_Authorization=' + good + b'"'), MALFORMED
    )
    yield Odd("a bad header and a good cookie", request(header(bad), cookie(good)), (401, "wrong_type"))
    yield Odd("an empty header and a good cookie", request(header(b""), cookie(good)), MALFORMED)
    yield Odd("a good header and a bad cookie", request(header(good), cookie(bad)), IN)
    yield Odd("a good header and cookies that differ", request(header(good), cookie(bad, other)), IN)
    yield Odd("30 KB of semicolons", request(b"Cookie: " + b";" * 30_000), MISSING)
    yield Odd("60 KB of semicolons", request(b"Cookie: " + b";" * 60_000), MALFORMED)
    yield Odd("the name 3500 times", request(b"Cookie: " + b"CF_Authorization;" * 3500), MALFORMED)
    many = b"".join(b"CF_Authorization=%x;" % n for n in range(16))
    yield Odd("16 cookies that differ", request(b"Cookie: " + many), AMBIGUOUS)
    yield Odd(
        "2800 cookies that differ",
        request(b"Cookie: " + b"".join(b"CF_Authorization=%x;" % n for n in range(2800))),
        MALFORMED,
    )


def written(good: bytes) -> Iterator[Odd]:
    yield Odd("no token", request(), MISSING)
    yield Odd("the header in capitals", request(HEADER.upper() + b": " + good), IN)
    yield Odd("the header in lower case", request(HEADER.lower() + b":" + good), IN)
    yield Odd("spaces and tabs before the token", request(HEADER + b": \t  " + good), IN)
    yield Odd("a tab behind the token", request(header(good) + b"\t"), IN)
    yield Odd("spaces behind the token", request(header(good) + b"   "), IN)
    yield Odd("an empty header", request(HEADER + b":"), MALFORMED)
    yield Odd("a header of spaces", request(HEADER + b":    "), MALFORMED)
    folded = header(good[:50]) + b"\r\n " + good[50:]
    joined = {"h11": MALFORMED, "hypercorn": MALFORMED, "httptools": REFUSED_BY_SERVER}
    yield Odd("folded over two lines", request(folded), joined)
    yield Odd(
        "folded before it begins",
        request(HEADER + b":\r\n " + good),
        {"h11": IN, "hypercorn": IN, "httptools": REFUSED_BY_SERVER},
    )
    yield Odd("a space before the colon", request(HEADER + b" : " + good), REFUSED_BY_SERVER)
    for name, octet in {"a NUL": b"\0", "a bare CR": b"\r", "a vertical tab": b"\x0b", "DEL": b"\x7f"}.items():
        passed_on = {"h11": MALFORMED, "hypercorn": MALFORMED, "httptools": REFUSED_BY_SERVER}
        answer = passed_on if octet == b"\x7f" else REFUSED_BY_SERVER
        yield Odd(f"{name} in the token", request(header(good[:50] + octet + good[50:])), answer)
    yield Odd("forged lines of a log", request(header(b"x\\r\\n2026-01-01 INFO let in")), MALFORMED)


def large(good: bytes) -> Iterator[Odd]:
    for size in (17_000, 60_000):
        yield Odd(f"a header of {size} bytes", request(header(good.ljust(size, b"A"))), MALFORMED)
    too_large = {"h11": (400, ""), "hypercorn": (431, ""), "httptools": MALFORMED}
    for size in (MEGABYTE, 8 * MEGABYTE):
        yield Odd(f"a header of {size} bytes", request(header(good.ljust(size, b"A"))), too_large)
    yield Odd("a cookie of a megabyte", request(cookie(good.ljust(MEGABYTE, b"A"))), too_large)
    yield Odd("2000 other headers", request(*[b"X-%d: y" % number for number in range(2000)]), MISSING)


def methods(good: bytes) -> Iterator[Odd]:
    for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"HEAD"):
        head = method == b"HEAD"
        yield Odd(f"{method.decode()} without a token", request(b"Content-Length: 0", method=method), MISSING, head)
        yield Odd(f"{method.decode()} with one", request(b"Content-Length: 0", header(good), method=method), IN, head)
    preflight = (b"Origin: https://evil.example", b"Access-Control-Request-Method: POST")
    yield Odd("a preflight", request(*preflight, method=b"OPTIONS"), MISSING)
    override = (b"X-HTTP-Method-Override: GET", b"Content-Length: 0")
    yield Odd("a method overridden", request(*override, method=b"POST"), MISSING)
