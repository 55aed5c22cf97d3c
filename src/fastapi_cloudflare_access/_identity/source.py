"""The identities of users: asked once for each token at a time, and kept for a short time."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Literal

from fastapi_cloudflare_access._clock import run_with_timeout, wait_until_done
from fastapi_cloudflare_access._identity.document import WrongAnswer, ask
from fastapi_cloudflare_access._identity.limits import Limiter
from fastapi_cloudflare_access._keys.document import describe
from fastapi_cloudflare_access._logging import Throttle, emit, log
from fastapi_cloudflare_access.claims import UserClaims
from fastapi_cloudflare_access.errors import AccessError, IdentityUnavailable, TokenRevoked
from fastapi_cloudflare_access.events import IdentityFetched
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.protocols import Clock, Fetch, Listener
from fastapi_cloudflare_access.settings import Settings

MAX_IDENTITY_AGE = 60.0
"""Seconds for which an identity is used again."""
MAX_ENTRIES, MAX_BYTES = 1024, 8 * 1024 * 1024
"""Number of identities that are kept, and bytes of their documents."""
FETCH_TASK = "cloudflare-access-identity"
"""Name of the asyncio tasks."""

logger = logging.getLogger("fastapi_cloudflare_access")

_CANCELLATIONS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)


@dataclass(frozen=True, slots=True)
class _Entry:
    """The last answer for one token.

    Attributes:
        identity: The identity; None if the token has no session.
        size: Size of the document, in bytes.
        asked_at: Monotonic time of the question, in seconds.
    """

    identity: Identity | None
    size: int
    asked_at: float


class IdentitySource:
    """Asks get-identity for the users of verified tokens.

    It can be created at import and used in several event loops: fetches belong to the loop that asked.
    """

    def __init__(self, settings: Settings, *, fetch: Fetch, clock: Clock, listeners: Sequence[Listener] = ()) -> None:
        """Create a source that has asked nothing."""
        self._url = settings.identity_url
        self._timeout = settings.key_settings.fetch_timeout
        self._fetch, self._clock, self._listeners = fetch, clock, listeners
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # of the entries, which the event loops of several threads share
        self._in_flight: dict[bytes, asyncio.Task[Identity | AccessError]] = {}
        self._limiter = Limiter()
        self._throttle = Throttle()

    async def identity(self, token: bytes, caller: UserClaims) -> Identity | AccessError:
        """Return the identity of the user of a verified token, or why there is none.

        `TokenRevoked` means that the token has no session any more; `IdentityUnavailable` that it cannot be asked.
        """
        return await self._answer(token, caller, max_age=MAX_IDENTITY_AGE)

    async def recheck(self, token: bytes, caller: UserClaims, settings: Settings) -> AccessError | None:
        """Return None if the session of a verified token is alive as far as the settings ask, or else the error."""
        answer = await self._answer(token, caller, max_age=settings.recheck_session)
        if isinstance(answer, Identity):
            return None
        if isinstance(answer, IdentityUnavailable) and self._is_within_grace(token, caller, settings):
            return None
        return answer

    def _is_within_grace(self, token: bytes, caller: UserClaims, settings: Settings) -> bool:
        """Check whether the session was alive lately: when it was last asked for, or when the token was issued."""
        if settings.recheck_unavailable != "allow":
            return False
        age = self._clock.now() - caller.iat
        if entry := self._entries.get(sha256(token).digest()):
            age = min(age, self._clock.monotonic() - entry.asked_at)
        return age < settings.recheck_session + settings.recheck_grace

    async def _answer(self, token: bytes, caller: UserClaims, *, max_age: float) -> Identity | AccessError:
        digest = sha256(token).digest()
        now = self._clock.monotonic()
        with self._lock:
            if (entry := self._entries.get(digest)) is not None:
                self._entries.move_to_end(digest)
        if entry is not None and now - entry.asked_at < max_age:
            return entry.identity or _no_session()
        answer = await self._ask(digest, token, caller)
        if isinstance(answer, IdentityUnavailable) and entry is not None and entry.identity is None:
            return _no_session()  # what was known before goes on to count
        return answer

    async def _ask(self, digest: bytes, token: bytes, caller: UserClaims) -> Identity | AccessError:
        loop = asyncio.get_running_loop()
        task = self._in_flight.get(digest)
        if task is None or task.done() or task.get_loop() is not loop:
            if limited := self._limiter.wait(caller.sub, self._clock.monotonic(), in_flight=self._count_in_flight()):
                self._emit("limited", 0.0)
                return self._unavailable(limited[1], retry_after=limited[0])
            task = asyncio.create_task(self._run(digest, token, caller), name=FETCH_TASK)
            self._in_flight[digest] = task
            task.add_done_callback(lambda _: self._count_in_flight())
        if await wait_until_done(self._clock, task, timeout=self._timeout) and not task.cancelled():
            return task.result()
        return self._unavailable("no response in time")

    async def _run(self, digest: bytes, token: bytes, caller: UserClaims) -> Identity | AccessError:
        started_at = self._clock.monotonic()
        try:
            work = ask(self._fetch, self._url, token, user_id=caller.sub)
            identity, size = await run_with_timeout(self._clock, work, timeout=self._timeout)
        except _CANCELLATIONS:
            raise
        except BaseException as problem:  # noqa: BLE001 - a fetch may raise anything
            now = self._clock.monotonic()
            self._emit("failed", now - started_at)
            if isinstance(problem, WrongAnswer):
                self._limiter.record_answer()
            else:
                self._limiter.record_failure(now)
            return self._unavailable(describe(problem))
        else:
            self._limiter.record_answer()
            self._emit("identity" if identity else "no_session", self._clock.monotonic() - started_at)
            self._keep(digest, _Entry(identity, size, started_at))
            return identity or _no_session()

    def _count_in_flight(self) -> int:
        """Forget the fetches that have ended, or whose event loop is closed, and return the number of the others."""
        for digest, task in [*self._in_flight.items()]:
            if task.done() or task.get_loop().is_closed():
                self._in_flight.pop(digest, None)
        return len(self._in_flight)

    def _keep(self, digest: bytes, entry: _Entry) -> None:
        """Keep an answer, unless a later question was answered; remove the least recently used ones if too many."""
        with self._lock:
            before = self._entries.get(digest)
            if before is not None and before.asked_at > entry.asked_at:
                return
            if before is not None:
                del self._entries[digest]
                self._bytes -= before.size
            self._entries[digest] = entry
            self._bytes += entry.size
            while len(self._entries) > MAX_ENTRIES or self._bytes > MAX_BYTES:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.size

    def _unavailable(self, why: str, *, retry_after: float = 1.0) -> IdentityUnavailable:
        if (left_out := self._throttle.repetitions(why, self._clock.monotonic())) is not None:
            log(logger, logging.WARNING, "get-identity could not be asked: %s (left out since: %d)", why, left_out)
        return IdentityUnavailable(f"get-identity could not be asked: {why}", retry_after=retry_after)

    def _emit(self, outcome: Literal["identity", "no_session", "failed", "limited"], seconds: float) -> None:
        if self._listeners:
            event = IdentityFetched(timestamp=self._clock.now(), outcome=outcome, seconds=seconds)
            emit(self._listeners, event, logger)


def _no_session() -> TokenRevoked:
    return TokenRevoked("the token has no session any more")
