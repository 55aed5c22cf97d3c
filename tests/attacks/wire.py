"""Talking HTTP over a bare socket, so that nothing is made tidy on the way."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass

HEADER = b"Cf-Access-Jwt-Assertion"
SECONDS = 15


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        status: The status code; 0 where it hung up without an answer.
        headers: The header section as it came.
        body: The body.
    """

    status: int
    headers: bytes = b""
    body: bytes = b""

    @property
    def reason(self) -> str:
        """The reason code that the app under attack tells."""
        return self.field(b"x-reason").decode()

    def field(self, name: bytes) -> bytes:
        """The value of a header; empty where there is none."""
        for line in self.headers.split(b"\r\n"):
            found, _, value = line.partition(b":")
            if found.lower() == name:
                return value.strip()
        return b""


def request(*fields: bytes, method: bytes = b"GET", path: bytes = b"/", body: bytes = b"") -> bytes:
    """Write a request; each field is a whole header line."""
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: app.example.com", *fields, b"", body])


class Connection:
    """A connection that is opened again where the server closed it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        self._rest = b""

    def ask(self, data: bytes, *, head: bool = False, seconds: float = SECONDS) -> Answer:
        """Send a request and give the answer."""
        answer = Answer(0)
        for _ in range(2):
            try:
                self._connected().settimeout(seconds)
                self._connected().sendall(data)
                answer = self.read(head=head)
            except (BrokenPipeError, ConnectionResetError):
                answer = Answer(0)
            if answer.status:
                break
            self.close()
        if answer.field(b"connection").lower() == b"close":
            self.close()
        return answer

    def pipeline(self, requests: Iterable[bytes]) -> list[Answer]:
        """Send several requests at once and give the answers."""
        asked = list(requests)
        self._connected().sendall(b"".join(asked))
        return [self.read() for _ in asked]

    def read(self, *, head: bool = False) -> Answer:
        """Give the next answer."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return Answer(0)
        headers, _, self._rest = self._rest.partition(b"\r\n\r\n")
        answer = Answer(int(headers.split(b" ", 2)[1]), headers)
        length = 0 if head else int(answer.field(b"content-length") or 0)
        if answer.field(b"transfer-encoding") == b"chunked":
            return Answer(answer.status, headers, self._chunks())
        while len(self._rest) < length and self._more():
            pass
        body, self._rest = self._rest[:length], self._rest[length:]
        return Answer(answer.status, headers, body)

    def _chunks(self) -> bytes:
        while b"0\r\n\r\n" not in self._rest and self._more():
            pass
        body, _, self._rest = self._rest.partition(b"0\r\n\r\n")
        return body

    def _more(self) -> bool:
        received = self._connected().recv(65_536)
        self._rest += received
        return bool(received)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self.address, timeout=SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._rest = b""
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
