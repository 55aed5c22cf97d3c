"""No request gives 500: what real servers hand on of odd requests, sent octet by octet."""

import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support.answer_servers import SERVERS
from support.answer_table import Rig, ada, rig

Make = Callable[[bytes], list[bytes]]
"""Takes a good token, gives the header lines."""

ASSERTION, COOKIE = b"Cf-Access-Jwt-Assertion: ", b"Cookie: CF_Authorization="
MEGABYTE = 1 << 20
SERVER_ANSWERS = {400, 431}
"""What servers say of what they do not hand on."""


@dataclass(frozen=True)
class Odd:
    """An odd request.

    Attributes:
        make: Its header lines.
        statuses: What it may get.
        start: Its first line.
    """

    make: Make
    statuses: set[int]
    start: bytes = b"GET /user HTTP/1.1"


def lines(*lines: bytes) -> Make:
    """The same whatever the token."""
    return lambda _: list(lines)


REFUSED = {401}
DROPPED_OR_REFUSED = {401} | SERVER_ANSWERS
ODD = {
    "8 MB header": Odd(lines(ASSERTION + b"a" * 8 * MEGABYTE), DROPPED_OR_REFUSED),
    "8 MB of dots": Odd(lines(ASSERTION + b"." * 8 * MEGABYTE), DROPPED_OR_REFUSED),
    "8 MB cookie": Odd(lines(COOKIE + b"a" * 8 * MEGABYTE), DROPPED_OR_REFUSED),
    "1 MB of semicolons": Odd(lines(b"Cookie: " + b";" * MEGABYTE), DROPPED_OR_REFUSED),
    "8 MB in another header": Odd(
        lambda token: [b"X: " + b"a" * 8 * MEGABYTE, ASSERTION + token], {200} | SERVER_ANSWERS
    ),
    "just under 64 KB": Odd(lines(ASSERTION + b"a" * 60_000), DROPPED_OR_REFUSED),
    "token of 16 KiB of dots": Odd(lines(ASSERTION + b"." * 16_384), DROPPED_OR_REFUSED),
    "two headers": Odd(lambda token: [ASSERTION + token, ASSERTION + token], REFUSED),
    "a thousand headers": Odd(lambda token: [ASSERTION + token[:9]] * 1000, DROPPED_OR_REFUSED),
    "two headers in two spellings": Odd(lambda token: [ASSERTION + token, ASSERTION.upper() + token], REFUSED),
    "two tokens in one header": Odd(lambda token: [ASSERTION + token + b", " + token], REFUSED),
    "two cookie headers": Odd(lambda token: [COOKIE + token, COOKIE + token[:-9]], REFUSED),
    "a cookie twice": Odd(lambda token: [COOKIE + token, COOKIE + token], {200}),
    "a thousand cookies": Odd(
        lines(COOKIE + b"; CF_Authorization=".join(b"%d" % n for n in range(1000))), DROPPED_OR_REFUSED
    ),
    "cookie without value": Odd(lines(b"Cookie: CF_Authorization"), REFUSED),
    "cookie of semicolons": Odd(lines(b"Cookie: ;;;=;;=a;CF_Authorization;;"), REFUSED),
    "empty cookie header": Odd(lines(b"Cookie:"), REFUSED),
    "empty header": Odd(lines(b"Cf-Access-Jwt-Assertion:"), REFUSED),
    "header of blanks": Odd(lines(b"Cf-Access-Jwt-Assertion:  \t "), REFUSED),
    "quoted cookie": Odd(lambda token: [COOKIE + b'"' + token + b'"'], REFUSED),
    "folded header": Odd(lambda token: [ASSERTION + token[:9], b" " + token[9:]], DROPPED_OR_REFUSED),
    "folded empty header": Odd(lambda token: [b"Cf-Access-Jwt-Assertion:", b"\t" + token], {200} | DROPPED_OR_REFUSED),
    "blank before the colon": Odd(lambda token: [b"Cf-Access-Jwt-Assertion : " + token], DROPPED_OR_REFUSED),
    "underscores": Odd(lambda token: [b"Cf_Access_Jwt_Assertion: " + token], REFUSED),
    "non-ASCII cookie": Odd(lines(COOKIE + "é.ü.ß".encode()), DROPPED_OR_REFUSED),
    "non-ASCII cookie before a good one": Odd(
        lambda token: [b"Cookie: n=\xff\xfe; CF_Authorization=" + token], {200} | SERVER_ANSWERS
    ),
    "non-ASCII header": Odd(lines(ASSERTION + "é.ü.ß".encode()), DROPPED_OR_REFUSED),
    "not UTF-8": Odd(lines(ASSERTION + b"\xff.\xfe.\x80"), DROPPED_OR_REFUSED),
    "look-alike name": Odd(lambda token: ["Cf-A\u0441\u0441ess-Jwt-Assertion: ".encode() + token], DROPPED_OR_REFUSED),
    "NUL": Odd(lambda token: [ASSERTION + token + b"\0"], DROPPED_OR_REFUSED),
    "control characters": Odd(lambda token: [ASSERTION + b"\x01\x1b" + token], DROPPED_OR_REFUSED),
    "bare line feeds": Odd(lambda token: [ASSERTION + token + b"\nX: y"], {200} | DROPPED_OR_REFUSED),
    "bare carriage return": Odd(lambda token: [ASSERTION + token + b"\rX: y"], DROPPED_OR_REFUSED),
    "percent-encoded": Odd(lambda token: [ASSERTION + token.replace(b".", b"%2E")], REFUSED),
    # httptools hands trailers on as headers; the token is verified all the same.
    "in the trailer": Odd(
        lambda token: [b"Transfer-Encoding: chunked", b"", b"0", ASSERTION + token], {200} | DROPPED_OR_REFUSED
    ),
    "HTTP/1.0": Odd(lambda token: [ASSERTION + token], {200}, b"GET /user HTTP/1.0"),
    "absolute form": Odd(lambda token: [ASSERTION + token], {200, 400, 404}, b"GET http://127.0.0.1/user HTTP/1.1"),
    "another method": Odd(lambda token: [ASSERTION + token], {405}, b"DELETE /user HTTP/1.1"),
    "an unknown method": Odd(lines(), {400, 405}, b"BREW /user HTTP/1.1"),
    "a path of another case": Odd(lambda token: [ASSERTION + token], {404}, b"GET /USER HTTP/1.1"),
    "a path with NUL": Odd(lines(), {400, 404}, b"GET /user%00 HTTP/1.1"),
    "a query that says who": Odd(lines(), REFUSED, b"GET /user?connection=x&caller=x&access=x HTTP/1.1"),
    "a WebSocket path": Odd(
        lambda token: [ASSERTION + token, b"Upgrade: websocket", b"Connection: Upgrade"],
        {200} | DROPPED_OR_REFUSED | {426},
    ),
    "half a WebSocket": Odd(
        lines(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 9", b"Sec-WebSocket-Key: x"),
        DROPPED_OR_REFUSED | {426},
    ),
    "an upgrade to HTTP/2": Odd(
        lines(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: x"), DROPPED_OR_REFUSED
    ),
}


@pytest.fixture(scope="module")
def table() -> Iterator[Rig]:
    with rig() as table:
        yield table


@pytest.fixture(scope="module", params=["uvicorn-h11", "uvicorn-httptools"])
def address(request: pytest.FixtureRequest, table: Rig) -> Iterator[str]:
    with SERVERS[request.param](table.app) as address:
        yield address


def status(address: str, request: bytes) -> int:
    """Send these octets and give the status of the answer; 400 where the server closes without one."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        try:
            connection.sendall(request)
            answer = connection.recv(65_536)
        except ConnectionError:
            return 400
        return int(answer.split(b" ")[1]) if answer else 400


@pytest.mark.parametrize("odd", ODD.values(), ids=list(ODD))
def test_no_request_gives_500(address: str, table: Rig, odd: Odd, caplog: pytest.LogCaptureFixture) -> None:
    headers = [b"Host: " + address.encode(), b"Connection: close", *odd.make(ada(table.team).encode())]
    request = b"\r\n".join([odd.start, *headers, b"", b""])
    assert status(address, request) in odd.statuses
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_after_all_that_a_good_request_is_still_let_in(address: str, table: Rig) -> None:
    good = (
        b"GET /user HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + ASSERTION + ada(table.team).encode() + b"\r\n\r\n"
    )
    for odd in ("8 MB header", "non-ASCII cookie", "a thousand headers"):
        status(address, b"\r\n".join([ODD[odd].start, b"Host: x", *ODD[odd].make(b"a.b.c"), b"", b""]))
    assert status(address, good) == 200
