"""A team's certs endpoint: exact counts, and faults on demand. `MemoryFetch` and `CertsServer` both serve it."""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from threading import Lock
from typing import Literal

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing._checking import (
    check_body,
    check_headers,
    check_seconds,
    check_size,
    check_status,
    check_times,
)
from fastapi_cloudflare_access.testing._issuer import Issuer

_HTML = b"<!DOCTYPE html><title>Error</title><h1>Unable to find your Access organization!</h1>"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the endpoint, right or wrong.

    Attributes:
        status: The HTTP status code.
        headers: The response headers, names in lower case.
        pieces: The body, as it is sent.
        delay: Seconds before it begins.
        pause: Seconds before each piece but the first.
        ending: What comes after the last piece: the end, a broken connection, or nothing ever; `refused` sends
            nothing at all and breaks the connection.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    pieces: tuple[bytes, ...] = ()
    delay: float = 0.0
    pause: float = 0.0
    ending: Literal["complete", "reset", "hang", "refused"] = "complete"


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One fetch as the endpoint saw it.

    Attributes:
        url: What was asked for: the URL in memory, the path on a server.
        headers: The request headers, names in lower case.
        at: When, by the team's monotonic clock.
    """

    url: str
    headers: Mapping[str, str]
    at: float


Maker = Callable[[Answer], Answer]


class CertsEndpoint:
    """What serves a team's certs.

    Faults take effect in the order in which they are called for: with `times`, for that many fetches; without, until
    the next fault or `recover()`. One that makes no sense raises `ConfigurationError` where it is called for.

    Attributes:
        team: The team whose certs are served.
        requests: Every fetch so far.
    """

    def __init__(self, team: Issuer, *, headers: Mapping[str, str] | None = None, etag: bool = False) -> None:
        """Serve the team's certs.

        Args:
            team: The team.
            headers: What good answers carry besides, such as `{"cache-control": "max-age=60"}`.
            etag: Whether good answers carry an `ETag`, and 304 is answered where it is unchanged.

        Raises:
            ConfigurationError: It is no team, or the headers are none.
        """
        if not isinstance(team, Issuer):
            raise ConfigurationError(f"only the certs of a FakeTeam can be served, not of {type(team).__name__}")
        check_headers(headers)
        self.team = team
        self.requests: list[SeenRequest] = []
        self._headers = {"content-type": "application/json", **(headers or {})}
        self._etag = etag
        self._script: list[tuple[Maker, int | None]] = []
        self._lock = Lock()

    @property
    def fetches(self) -> int:
        """How many fetches have begun."""
        return len(self.requests)

    def recover(self) -> None:
        """Answer rightly from now on."""
        with self._lock:
            self._script.clear()

    def fail_with(self, status: int = 503, *, times: int | None = None) -> None:
        """Answer with this status and an HTML page."""
        self.answer_with(_HTML, status=status, headers={"content-type": "text/html"}, times=times)

    def html(self, *, times: int | None = None) -> None:
        """Answer 200 with an HTML page, as a captive portal does."""
        self.fail_with(200, times=times)

    def empty(self, *, times: int | None = None) -> None:
        """Answer 200 with no body."""
        self.answer_with(b"", times=times)

    def no_keys(self, *, times: int | None = None) -> None:
        """Answer 200 with a document without keys."""
        self.answer_with(b'{"keys":[],"public_cert":null,"public_certs":[]}', times=times)

    def garbage(self, *, times: int | None = None) -> None:
        """Answer 200 with bytes that are no JSON."""
        self.answer_with(b"\x00\xff{garbage", times=times)

    def redirect(self, location: str, *, times: int | None = None) -> None:
        """Answer 302 to somewhere else."""
        self.answer_with(b"", status=302, headers={"location": location}, times=times)

    def oversize(self, size: int = 2_000_000, *, times: int | None = None) -> None:
        """Answer with the right document after `size` bytes of white space, without saying how long it is."""
        check_size(size)
        self._add(lambda good: _oversized(good, size), times)

    def gzip_bomb(self, size: int = 50_000_000, *, times: int | None = None) -> None:
        """Answer with a small body that unpacks to `size` bytes."""
        check_size(size)
        body = gzip.compress(bytes(size), compresslevel=9)
        self.answer_with(body, headers={"content-encoding": "gzip"}, times=times)

    def truncate(self, *, times: int | None = None) -> None:
        """Promise a whole document and end in its middle."""
        self._add(_truncated, times)

    def reset(self, *, times: int | None = None) -> None:
        """Break the connection in the middle of the document."""
        self._add(lambda good: replace(_truncated(good), ending="reset"), times)

    def refuse(self, *, times: int | None = None) -> None:
        """Break the connection before a byte of an answer."""
        self._add(lambda good: replace(good, ending="refused"), times)

    def hang(self, *, times: int | None = None) -> None:
        """Never answer."""
        self._add(lambda good: replace(good, delay=float("inf")), times)

    def stall(self, *, times: int | None = None) -> None:
        """Begin the document and never go on."""
        self._add(lambda good: replace(_truncated(good), ending="hang"), times)

    def slow(self, seconds: float, *, times: int | None = None) -> None:
        """Answer rightly, after a while."""
        check_seconds("seconds", seconds)
        self._add(lambda good: replace(good, delay=seconds), times)

    def drip(self, pause: float, *, size: int = 1, times: int | None = None) -> None:
        """Send the right document a few bytes at a time, with a pause before each."""
        check_seconds("pause", pause)
        check_size(size)
        self._add(lambda good: replace(good, pieces=_cut(b"".join(good.pieces), size), pause=pause), times)

    def flap(self, *, times: int | None = None) -> None:
        """Answer every other time with what the team publishes now, as two edges do that disagree after a rotation."""
        former, seen = self.team.certs_body(), [False]

        def answer(good: Answer) -> Answer:
            seen[0] = not seen[0]
            return _with_body(good, former) if seen[0] else good

        self._add(answer, times)

    def lag(self, seconds: float) -> None:
        """Go on with what the team publishes now, for so long on the team's clock, as an edge does that learns late."""
        check_seconds("seconds", seconds)
        former, end = self.team.certs_body(), self.team.clock.monotonic() + seconds
        self._add(lambda good: _with_body(good, former) if self.team.clock.monotonic() < end else good, None)

    def answer_with(
        self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None, times: int | None = None
    ) -> None:
        """Answer with anything.

        Raises:
            ConfigurationError: The body is no bytes, the status none of HTTP, a header no text, or `times` no number of
                fetches.
        """
        check_body(body)
        check_status(status)
        check_headers(headers)
        answer = _with_body(Answer(status, self._headers), body)
        answer = replace(answer, headers={**answer.headers, **(headers or {})})
        self._add(lambda _: answer, times)

    def _add(self, maker: Maker, times: int | None) -> None:
        check_times(times)
        with self._lock:
            if self._script and self._script[-1][1] is None:
                self._script.pop()
            self._script.append((maker, times))

    def answer(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Count a fetch and say what it gets."""
        request = SeenRequest(
            url, {name.lower(): value for name, value in headers.items()}, self.team.clock.monotonic()
        )
        with self._lock:
            self.requests.append(request)
            good = self._good(request)
            if not self._script:
                return good
            maker, times = self._script.pop(0)
            if times is None or times > 1:
                self._script.insert(0, (maker, times and times - 1))
        return maker(good)

    def _good(self, request: SeenRequest) -> Answer:
        body = self.team.certs_body()
        if not self._etag:
            return _with_body(Answer(headers=self._headers), body)
        etag = f'"{sha256(body).hexdigest()[:16]}"'
        headers = {**self._headers, "etag": etag}
        if request.headers.get("if-none-match") == etag:
            return Answer(304, headers)
        return _with_body(Answer(headers=headers), body)


def _with_body(answer: Answer, body: bytes) -> Answer:
    return replace(answer, headers={**answer.headers, "content-length": str(len(body))}, pieces=(body,) if body else ())


def _oversized(good: Answer, size: int) -> Answer:
    headers = {name: value for name, value in good.headers.items() if name != "content-length"}
    return replace(good, headers=headers, pieces=(*_cut(b" " * size, 65_536), *good.pieces))


def _cut(body: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(body[start : start + size] for start in range(0, len(body), size))


def _truncated(good: Answer) -> Answer:
    body = b"".join(good.pieces)
    return replace(good, pieces=(body[: len(body) // 2],))
