"""The identities of users: asked once for each token at a time, and kept for a short time."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from threading import Lock
from typing import Literal, NamedTuple

from fastapi_cloudflare_access._clock import run_with_timeout, wait_until_done
from fastapi_cloudflare_access._identity.document import WrongAnswer, ask
from fastapi_cloudflare_access._identity.limits import Limiter
from fastapi_cloudflare_access._keys.document import describe
from fastapi_cloudflare_access._logging import Throttle, emit, log, omitted
from fastapi_cloudflare_access.claims import UserClaims
from fastapi_cloudflare_access.errors import AccessError, IdentityUnavailable, TokenRevoked
from fastapi_cloudflare_access.events import IdentityFetched
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.protocols import Clock, Fetch, Listener
from fastapi_cloudflare_access.settings import Settings

MAX_IDENTITY_AGE = 60.0
"""Seconds for which an identity is used again, and for which a session that was not found is not asked for again."""
MAX_SESSIONS = 65_536
"""Number of tokens of which the last answer is remembered."""
MAX_DOCUMENTS, MAX_BYTES = 1024, 8 * 1024 * 1024
"""Number of identities that are kept, and bytes of their documents."""
FETCH_TASK = "cloudflare-access-identity"
"""Name of the asyncio tasks."""

logger = logging.getLogger("fastapi_cloudflare_access")

_CANCELLATIONS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)


class Session(NamedTuple):
    """The last answer about the session of a token.

    Attributes:
        is_alive: Whether the token had a session.
        asked_at: Monotonic time of the question, in seconds.
    """

    is_alive: bool
    asked_at: float


class IdentitySource:
    """Asks get-identity for the users of verified tokens.

    It can be created at import and used in several event loops: fetches belong to the loop that asked.
    """

    def __init__(self, settings: Settings, *, fetch: Fetch, clock: Clock, listeners: Sequence[Listener] = ()) -> None:
        """Create a source that has asked nothing."""
        self._settings = settings
        self._timeout = settings.key_settings.fetch_timeout
        self._fetch, self._clock, self._listeners = fetch, clock, listeners
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._documents: OrderedDict[bytes, tuple[Identity, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # of these two, which the event loops of several threads share
        self._in_flight: dict[bytes, tuple[asyncio.Task[Identity | AccessError], float]] = {}
        self._limiter = Limiter()
        self._throttle = Throttle()

    async def identity(self, token: bytes, user: UserClaims) -> Identity | AccessError:
        """Return the identity of the user of a verified token, or why there is none.

        `TokenRevoked` means that the token has no session any more; `IdentityUnavailable` that it cannot be asked.
        """
        digest = sha256(token).digest()
        session, identity = self._known(digest)
        if session is not None and self._clock.monotonic() - session.asked_at < MAX_IDENTITY_AGE:
            if not session.is_alive:
                return _no_session()
            if identity is not None:
                return identity if identity.user_uuid == user.sub else self._unavailable("the token has changed")
        return await self._ask(digest, token, user, session)

    async def recheck(self, token: bytes, user: UserClaims) -> AccessError | None:
        """Return None if the session of a verified token is alive as far as the settings ask, or else the error."""
        digest = sha256(token).digest()
        session, _ = self._known(digest)
        if session is not None:
            age, longest = self._clock.monotonic() - session.asked_at, self._settings.recheck_session
            if age < (longest if session.is_alive else min(longest, MAX_IDENTITY_AGE)):
                return None if session.is_alive else _no_session()
        answer = await self._ask(digest, token, user, session)
        if isinstance(answer, Identity):
            return None
        if isinstance(answer, IdentityUnavailable) and self._is_within_grace(user, session):
            return None
        return answer

    def _is_within_grace(self, user: UserClaims, session: Session | None) -> bool:
        """Check whether the session was alive lately: when it was last asked for, or when the token was issued."""
        if self._settings.recheck_unavailable != "allow":
            return False
        age = self._clock.now() - user.iat
        if session is not None:
            age = min(age, self._clock.monotonic() - session.asked_at)
        return age < self._settings.recheck_session + self._settings.recheck_grace

    def _known(self, digest: bytes) -> tuple[Session | None, Identity | None]:
        """Return what is kept about a token, and mark it as the most recently used."""
        with self._lock:
            session, document = self._sessions.get(digest), self._documents.get(digest)
            if session is not None:
                self._sessions.move_to_end(digest)
            if document is not None:
                self._documents.move_to_end(digest)
        return session, document and document[0]

    async def _ask(
        self, digest: bytes, token: bytes, user: UserClaims, session: Session | None
    ) -> Identity | AccessError:
        """Return the answer of get-identity, by the fetch in flight for this token or by a new one."""
        in_flight = self._in_flight.get(digest)
        task = in_flight and in_flight[0]
        now = self._clock.monotonic()
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            if limited := self._limiter.wait(user.sub, now, in_flight=self._count_in_flight()):
                seconds, why = limited
                self._emit("limited", 0.0)
                return self._cannot_ask(why, session, retry_after=seconds)
            task = asyncio.create_task(self._run(digest, token, user), name=FETCH_TASK)
            self._in_flight[digest] = task, now
            task.add_done_callback(lambda _: self._count_in_flight())
        if not await wait_until_done(self._clock, task, timeout=self._timeout) or task.cancelled():
            return self._cannot_ask("no response in time", session)
        answer = task.result()
        return _no_session() if isinstance(answer, IdentityUnavailable) and _is_over(session) else answer

    def _cannot_ask(self, why: str, session: Session | None, *, retry_after: float = 1.0) -> AccessError:
        """Return the error if nothing can be asked; what was known before goes on to count."""
        return _no_session() if _is_over(session) else self._unavailable(why, retry_after=retry_after)

    async def _run(self, digest: bytes, token: bytes, user: UserClaims) -> Identity | AccessError:
        started_at = self._clock.monotonic()
        try:
            work = ask(self._fetch, self._settings.identity_url, token, user_id=user.sub)
            identity, size = await run_with_timeout(self._clock, work, timeout=self._timeout)
        except _CANCELLATIONS:
            raise
        except BaseException as problem:  # noqa: BLE001 - a fetch may raise anything
            now = self._clock.monotonic()
            self._emit("failed", now - started_at)
            if isinstance(problem, WrongAnswer):
                self._limiter.record_answer()
            else:
                self._limiter.record_failure(user.sub, now)
            return self._unavailable(describe(problem))
        else:
            self._limiter.record_answer()
            self._emit("identity" if identity else "no_session", self._clock.monotonic() - started_at)
            self._keep(digest, Session(identity is not None, started_at), identity, size)
            return identity or _no_session()

    def _count_in_flight(self) -> int:
        """Forget the fetches that have ended, or whose event loop does not run them, and count the others."""
        latest = self._clock.monotonic() - 2 * self._timeout
        for digest, (task, started_at) in [*self._in_flight.items()]:
            if task.done() or task.get_loop().is_closed() or started_at < latest:
                self._in_flight.pop(digest, None)
        return len(self._in_flight)

    def _keep(self, digest: bytes, session: Session, identity: Identity | None, size: int) -> None:
        """Keep an answer, unless a later question was answered; remove the least recently used ones if too many."""
        with self._lock:
            before = self._sessions.get(digest)
            if before is not None and before.asked_at > session.asked_at:
                return
            self._sessions[digest] = session
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
            self._bytes -= self._documents.pop(digest, (None, 0))[1]
            if identity is not None:
                self._documents[digest] = identity, size
                self._bytes += size
            while len(self._documents) > MAX_DOCUMENTS or self._bytes > MAX_BYTES:
                _, (_, oldest) = self._documents.popitem(last=False)
                self._bytes -= oldest

    def _unavailable(self, why: str, *, retry_after: float = 1.0) -> IdentityUnavailable:
        if (left_out := self._throttle.repetitions(why, self._clock.monotonic())) is not None:
            log(logger, logging.WARNING, "cf-access could not ask get-identity: %s%s", why, omitted(left_out))
        return IdentityUnavailable(f"get-identity could not be asked: {why}", retry_after=retry_after)

    def _emit(self, outcome: Literal["identity", "no_session", "failed", "limited"], seconds: float) -> None:
        if self._listeners:
            event = IdentityFetched(timestamp=self._clock.now(), outcome=outcome, seconds=seconds)
            emit(self._listeners, event, logger)


def _is_over(session: Session | None) -> bool:
    return session is not None and not session.is_alive


def _no_session() -> TokenRevoked:
    return TokenRevoked("the token has no session any more")
