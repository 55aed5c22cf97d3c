"""An endpoint of a team with exact counts and scripted faults."""

import gzip
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Literal

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing._argument_checks import (
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
    """One response of the endpoint, correct or faulty.

    Attributes:
        status: The HTTP status code.
        headers: The response headers, names in lower case.
        pieces: The chunks of the body.
        delay: Seconds before the response begins.
        pause: Seconds before each chunk except the first.
        ending: The end of the response: complete, a reset connection, or a hang; `refused` resets the connection
            before the response.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    pieces: tuple[bytes, ...] = ()
    delay: float = 0.0
    pause: float = 0.0
    ending: Literal["complete", "reset", "hang", "refused"] = "complete"


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One fetch as the endpoint received it.

    Attributes:
        url: The URL in memory, or the path on a server.
        headers: The request headers, names in lower case.
        at: The time on the team's monotonic clock, in seconds.
    """

    url: str
    headers: Mapping[str, str]
    at: float


Maker = Callable[[Answer], Answer]


class Endpoint(ABC):
    """An endpoint of a team that counts fetches and plays scripted faults.

    Faults take effect in the order of their calls. With `times` a fault lasts for that many fetches, otherwise until
    the next fault or `recover()`. A fault with an invalid argument raises `ConfigurationError`.

    Attributes:
        team: The team whose documents are served.
        requests: Every fetch so far.
    """

    def __init__(self, team: Issuer, *, headers: Mapping[str, str] | None = None) -> None:
        """Serve a document of the team.

        Args:
            team: The team.
            headers: Extra headers of correct responses, such as `{"cache-control": "max-age=60"}`.

        Raises:
            ConfigurationError: The team is not a `FakeTeam`, or a header is not text.
        """
        if not isinstance(team, Issuer):
            raise ConfigurationError(f"team must be a FakeTeam, not {type(team).__name__}")
        check_headers(headers)
        self.team = team
        self.requests: list[SeenRequest] = []
        self._headers = {"content-type": "application/json", **(headers or {})}
        self._script: list[tuple[Maker, int | None]] = []
        self._lock = Lock()

    @property
    def fetches(self) -> int:
        """The number of fetches that have begun."""
        return len(self.requests)

    def recover(self) -> None:
        """Remove all faults."""
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

    def garbage(self, *, times: int | None = None) -> None:
        """Answer 200 with bytes that are not JSON."""
        self.answer_with(b"\x00\xff{garbage", times=times)

    def redirect(self, location: str, *, times: int | None = None) -> None:
        """Answer 302 with this location."""
        self.answer_with(b"", status=302, headers={"location": location}, times=times)

    def oversize(self, size: int = 2_000_000, *, times: int | None = None) -> None:
        """Answer with the document after `size` bytes of white space, without `Content-Length`."""
        check_size(size)
        self._add(lambda good: _oversized(good, size), times)

    def gzip_bomb(self, size: int = 50_000_000, *, times: int | None = None) -> None:
        """Answer with a small gzip body that decompresses to `size` bytes."""
        check_size(size)
        body = gzip.compress(bytes(size), compresslevel=9)
        self.answer_with(body, headers={"content-encoding": "gzip"}, times=times)

    def truncate(self, *, times: int | None = None) -> None:
        """End the response in the middle of the document, with the `Content-Length` of the whole."""
        self._add(_truncated, times)

    def reset(self, *, times: int | None = None) -> None:
        """Reset the connection in the middle of the document."""
        self._add(lambda good: replace(_truncated(good), ending="reset"), times)

    def refuse(self, *, times: int | None = None) -> None:
        """Reset the connection before the response."""
        self._add(lambda good: replace(good, ending="refused"), times)

    def hang(self, *, times: int | None = None) -> None:
        """Wait without an answer, for ever."""
        self._add(lambda good: replace(good, delay=float("inf")), times)

    def stall(self, *, times: int | None = None) -> None:
        """Send half of the document, then hang."""
        self._add(lambda good: replace(_truncated(good), ending="hang"), times)

    def slow(self, seconds: float, *, times: int | None = None) -> None:
        """Answer correctly after a delay in seconds."""
        check_seconds("seconds", seconds)
        self._add(lambda good: replace(good, delay=seconds), times)

    def drip(self, pause: float, *, size: int = 1, times: int | None = None) -> None:
        """Send the document in chunks of `size` bytes, with a pause in seconds between them."""
        check_seconds("pause", pause)
        check_size(size)
        self._add(lambda good: replace(good, pieces=_cut(b"".join(good.pieces), size), pause=pause), times)

    def answer_with(
        self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None, times: int | None = None
    ) -> None:
        """Answer with this body, status and headers.

        Raises:
            ConfigurationError: The body is not bytes, a header is not text, or a number is out of range.
        """
        check_body(body)
        check_status(status)
        check_headers(headers)
        answer = with_body(Answer(status, self._headers), body)
        answer = replace(answer, headers={**answer.headers, **(headers or {})})
        self._add(lambda _: answer, times)

    def _add(self, maker: Maker, times: int | None) -> None:
        check_times(times)
        with self._lock:
            if self._script and self._script[-1][1] is None:
                self._script.pop()
            self._script.append((maker, times))

    def answer(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Record a fetch and return its response."""
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

    @abstractmethod
    def _good(self, request: SeenRequest) -> Answer:
        """Return the correct response."""


def with_body(answer: Answer, body: bytes) -> Answer:
    """Return the same response with this body, in one piece."""
    return replace(answer, headers={**answer.headers, "content-length": str(len(body))}, pieces=(body,) if body else ())


def _oversized(good: Answer, size: int) -> Answer:
    headers = {name: value for name, value in good.headers.items() if name != "content-length"}
    return replace(good, headers=headers, pieces=(*_cut(b" " * size, 65_536), *good.pieces))


def _cut(body: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(body[start : start + size] for start in range(0, len(body), size))


def _truncated(good: Answer) -> Answer:
    body = b"".join(good.pieces)
    return replace(good, pieces=(body[: len(body) // 2],))
