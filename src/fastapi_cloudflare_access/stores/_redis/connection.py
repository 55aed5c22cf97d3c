"""Connections to Redis or Valkey: each is made where it is used, so nothing belongs to an event loop or a process."""

import re
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote_plus, urlsplit

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.stores._problem import StoreProblem

if TYPE_CHECKING:
    from redis.asyncio import Redis

SERVER_CONNECT_TIMEOUT, SERVER_COMMAND_TIMEOUT = 1.0, 1.0
"""Seconds that a connection to the server, and each command, may take."""

_FIXED = frozenset({"protocol", "decode_responses", "encoding", "encoding_errors"})
"""Options that the URL does not choose: they change what the responses look like."""
_SCHEMES = ("redis", "rediss")
_DATABASE = re.compile(r"/?[0-9]{0,9}")
_PREFIX = re.compile(r"[!-z|~]{0,64}")  # printable, and without braces, which choose the slot in a cluster
_WRITE_URL = "write redis://HOST:PORT/0, rediss://HOST:PORT/0 for TLS, or unix:///PATH"


class RedisConnection:
    """The address of a server, and connections to it.

    Attributes:
        prefix: Beginning of the names of all keys.
        shown_url: The URL without user, password and options.
    """

    def __init__(self, url: str, *, prefix: str) -> None:
        """Check the URL; nothing is connected.

        Raises:
            ConfigurationError: An argument is wrong, or the package `redis` is not installed.
        """
        self.shown_url = _checked_url(url)
        self.prefix = _checked_prefix(prefix)
        self._url = _without_fixed(url)
        with _client_package(), _url_problem():
            pool: Any = self._client().connection_pool
            pool.make_connection()  # reads the options of the URL, and does not connect

    @asynccontextmanager
    async def connect(self, *, command_timeout: float = SERVER_COMMAND_TIMEOUT) -> AsyncGenerator["Redis"]:
        """Return a client with one connection, which the context closes.

        Args:
            command_timeout: Seconds that each command may take; longer for one that blocks.

        Raises:
            StoreProblem: The server refuses a command, or is not one of Redis or Valkey.
            TimeoutError: It does not respond in time.
            ConnectionError: The connection fails or is lost.
        """
        with translated():
            client = self._client(command_timeout)
            try:
                yield client
            finally:
                await client.aclose()

    def _client(self, command_timeout: float = SERVER_COMMAND_TIMEOUT) -> "Redis":
        from redis.asyncio import Redis  # noqa: PLC0415 - of an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415 - the same
        from redis.backoff import NoBackoff  # noqa: PLC0415 - the same

        return Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - its options are not typed
            self._url,
            protocol=2,  # without HELLO, which older servers and narrow ACLs do not know
            socket_connect_timeout=SERVER_CONNECT_TIMEOUT,
            socket_timeout=command_timeout,
            retry=Retry(NoBackoff(), 0),  # the callers have limits of their own
        )


def _checked_prefix(prefix: Any) -> str:
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ConfigurationError("prefix must be at most 64 printable ASCII characters, without blanks and braces")
    return prefix


def _checked_url(url: Any) -> str:
    """Return the URL without user, password and options.

    Raises:
        ConfigurationError: It is not a URL of a server; the message does not quote it, since it may hold a password.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"url must be text: {_WRITE_URL}")
    with suppress(ValueError):  # of the port, or of an IPv6 address
        parts = urlsplit(url)
        is_cut = "@" in parts.query.partition("=")[0]  # at a question mark of the password
        if _is_server(parts) and not parts.fragment and not is_cut:
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    raise ConfigurationError(f"url is not a URL of Redis or Valkey: {_WRITE_URL}")


def _without_fixed(url: str) -> str:
    address, _, options = url.partition("?")
    kept = [option for option in options.split("&") if unquote_plus(option.partition("=")[0]) not in _FIXED]
    return f"{address}?{'&'.join(kept)}" if any(kept) else address


def _is_server(parts: SplitResult) -> bool:
    if parts.scheme == "unix":
        return bool(parts.path)
    database = _DATABASE.fullmatch(parts.path)
    return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0 and database is not None


@contextmanager
def _client_package() -> Generator[None]:
    """Raise a `ConfigurationError` for an `ImportError`."""
    try:
        yield
    except ImportError:
        raise ConfigurationError(
            "RedisStore needs the package redis: pip install 'fastapi-cloudflare-access[redis]'"
        ) from None


@contextmanager
def _url_problem() -> Generator[None]:
    """Raise a `ConfigurationError` for an option of the URL that the package `redis` refuses."""
    try:
        yield
    except (ValueError, TypeError):
        raise ConfigurationError(f"url has an option that the package redis refuses: {_WRITE_URL}") from None


@contextmanager
def translated() -> Generator[None]:
    """Raise an error without words of the server for each error of the client.

    Raises:
        StoreProblem: The server refused the command, or is not one of Redis or Valkey.
        TimeoutError: It did not respond in time.
        ConnectionError: The connection failed or was lost.
    """
    from redis import exceptions  # noqa: PLC0415 - of an extra

    try:
        yield
    except exceptions.RedisError as problem:
        if sentence := _refusal(problem):
            raise StoreProblem(sentence) from None
        if isinstance(problem, exceptions.TimeoutError):
            raise TimeoutError from problem
        if isinstance(problem, exceptions.ConnectionError):
            raise ConnectionError from problem
        raise StoreProblem(f"the command failed with {type(problem).__name__}") from None


def _refusal(problem: Exception) -> str | None:
    """Return the sentence for what the server refused, or None."""
    kinds = {kind.__name__ for kind in type(problem).__mro__}
    text = str(problem)
    return next(
        (sentence for kind, code, sentence in _REFUSALS if kind in kinds or (code and text.startswith(code))), None
    )


_REFUSALS = (
    ("AuthenticationError", "WRONGPASS", "the server refuses the user or the password of the URL, or asks for one"),
    ("AuthenticationWrongNumberOfArgsError", "NOAUTH", "the server asks for a password, and the URL has none"),
    ("NoPermissionError", "NOPERM", "the server does not permit a command to the user of the URL"),
    ("OutOfMemoryError", "OOM", "the server is out of memory (maxmemory)"),
    ("ReadOnlyError", "READONLY", "the server is a replica, which is read-only"),
    ("BusyLoadingError", "LOADING", "the server is still loading its data"),
    ("InvalidResponse", "", "the response is not one of Redis or Valkey; is the port right?"),
    ("", "WRONGTYPE", "a name of the store holds another type of value"),
)
"""Classes of the client's exceptions, error codes of the server, and sentences; the first that fits is used."""
