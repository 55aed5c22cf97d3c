"""Clients that keep streams open, and connect again with a fresh token when a stream ends."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import TypeAlias

from long_runs.issuing import Issuing, Token
from long_runs.judge import Tally
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

HEADER = "Cf-Access-Jwt-Assertion"
LEEWAY = 10.0
PAUSE = 5.0
"""Seconds of the clock before a refused stream is opened again, and in which a revocation may have been stored."""

Opened: TypeAlias = Callable[[], None]
Open: TypeAlias = Callable[[int, Token, Opened], Awaitable[str]]
"""Opens a stream, notes that it is open, and returns how it ended."""


class Refused(Exception):
    """The stream was not opened."""


class Streams:
    """Streams of one user each, half of them WebSockets and half of them event streams.

    Attributes:
        tokens: The token of each open stream.
    """

    def __init__(self, issuing: Issuing, tally: Tally, ports: Sequence[int], *, allowed: float) -> None:
        """Create streams to these ports that may outlive their token by `allowed` seconds of the clock."""
        self.tokens: dict[int, Token] = {}
        self._issuing, self._tally, self._ports, self._allowed = issuing, tally, ports, allowed

    async def keep(self, number: int) -> None:
        """Keep one stream open for ever."""
        port = self._ports[number % len(self._ports)]
        open_stream = open_socket if number // len(self._ports) % 2 else open_events
        email, first = f"stream-{number}@example.com", True
        try:
            while True:
                await self._wait_until_admitted(email)
                token = self._issuing.token(email, first=first)
                first = False
                await self._run(number, token, open_stream, port)
        finally:
            if number in self.tokens:
                self._judge("closed by the client", self.tokens.pop(number), is_open=True)

    async def _run(self, number: int, token: Token, open_stream: Open, port: int) -> None:
        def opened() -> None:
            self.tokens[number] = token
            self._tally.response("stream", "ok", expected=None)

        try:
            how = await open_stream(port, token, opened)
        except Refused as refused:
            self._tally.response("stream", str(refused), expected=self._issuing.is_valid(token))
        except OSError as error:
            self._tally.mistake("a connection failed", f"stream: {error!r}")
        else:
            self._judge(how, self.tokens.pop(number))
            return
        await self._issuing.team.clock.sleep(PAUSE)

    def _judge(self, how: str, token: Token, *, is_open: bool = False) -> None:
        now, end = self._issuing.now, min(token.ends + LEEWAY, token.revoked)
        is_early = not is_open and token.revoked == inf
        early = max(0.0, token.ends - now) if is_early else 0.0
        self._tally.ended(how, early=early, late=max(0.0, now - end), allowed=self._allowed)

    async def _wait_until_admitted(self, email: str) -> None:
        while (seconds := self._issuing.admitted_from(email) - self._issuing.now) > 0:
            await self._issuing.team.clock.sleep(min(seconds, PAUSE))


async def open_socket(port: int, token: Token, opened: Opened) -> str:
    """Keep a WebSocket open until the app closes it, and return the reason."""
    url, headers = f"ws://127.0.0.1:{port}/socket", {HEADER: token.text}
    try:
        async with connect(
            url, additional_headers=headers, open_timeout=30, compression=None, ping_interval=None
        ) as socket:
            opened()
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.reason if closed.rcvd else "no close frame"
            return "an unexpected message"
    except InvalidStatus as answer:
        raise Refused(_outcome(answer.response.status_code, answer.response.headers.get("x-reason", ""))) from None
    except TimeoutError:
        raise Refused("no response") from None


async def open_events(port: int, token: Token, opened: Opened) -> str:
    """Read an event stream until the app ends it, and return its last data, which is the reason."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /events HTTP/1.1\r\nHost: app\r\n{HEADER}: {token.text}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        _check_accepted(head)
        opened()
        return await _last_data(reader)
    except asyncio.IncompleteReadError:
        raise Refused("no response") from None
    finally:
        writer.close()


def _check_accepted(head: str) -> None:
    status = int(head.split(" ", 2)[1])
    if status != 200:
        names = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        raise Refused(_outcome(status, names.get("x-reason", "")))


async def _last_data(reader: asyncio.StreamReader) -> str:
    """Read the chunks of a stream to the last one, and return the data before it."""
    last = "nothing"
    while (line := (await reader.readline()).decode().strip()) != "0":
        if not line and reader.at_eof():
            return "an end without the last chunk"
        last = line.removeprefix("data: ") if line.startswith("data: ") else last
    return last


def _outcome(status: int, reason: str) -> str:
    return f"{status} {reason}".strip()
