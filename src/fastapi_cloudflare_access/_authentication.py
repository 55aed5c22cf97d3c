"""Authentication of one request: verified once, kept in a private place of the scope, logged and told to listeners."""

import logging
from collections.abc import Sequence
from typing import Any, Generic, Literal

from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_cloudflare_access._logging import tell
from fastapi_cloudflare_access._responses import log_refusal, refusal
from fastapi_cloudflare_access._verification.request_token import digest, find_token, is_from_header
from fastapi_cloudflare_access._verification.token import MAX_TOKEN
from fastapi_cloudflare_access._verifier import AwaitingKey, Outcome, U, Verifier
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, CredentialError, MalformedToken, MissingToken
from fastapi_cloudflare_access.events import RequestAccepted, RequestRejected
from fastapi_cloudflare_access.protocols import Listener

logger = logging.getLogger("fastapi_cloudflare_access")

OUTCOMES = "fastapi_cloudflare_access.outcomes"
"""The key of the scope under which each authenticator keeps its outcome; the app must not use it."""

_NOT_ASKED: tuple[Any, Any] = (None, None)


class Authenticator(Generic[U]):
    """Authenticates requests for one `CloudflareAccess`, and never believes what another one accepted.

    Attributes:
        verifier: The verifier; the testing kit replaces it for a while.
        listeners: The functions that receive events.
    """

    def __init__(self, verifier: Verifier[U], listeners: Sequence[Listener]) -> None:
        """Begin without a request."""
        self.verifier = verifier
        self.listeners = listeners

    async def outcome(self, scope: Scope) -> Outcome[U]:
        """Return the caller of a request, or the error, or None without a token; verified once per request."""
        outcomes: Any = scope.get(OUTCOMES)
        if outcomes is None:
            outcomes = scope[OUTCOMES] = {}
        headers = scope["headers"]
        known, kept = outcomes.get(self, _NOT_ASKED)
        outcome: Outcome[U] = kept
        if known is not headers:  # not asked yet, or a copy of the scope with other headers
            verifier = self.verifier
            found = verifier.authenticate_at_once(headers)
            outcome = await verifier.authenticate_after_fetch(found) if isinstance(found, AwaitingKey) else found
            outcomes[self] = headers, outcome
            if outcome is not None and not isinstance(outcome, AccessError):
                scope.setdefault("state", {})["cloudflare_access"] = outcome
                if self.listeners:
                    self._accepted(outcome, self._digest(scope) or "")
        return outcome

    async def verify(self, token: str | bytes | None) -> U | ServiceClaims:
        """Return the caller that a token identifies, with the same log and events as a request.

        Raises:
            AccessError: The token is refused, or its key cannot be fetched right now.
        """
        given = b""
        try:
            given = _as_bytes(token)
            caller = await self.verifier.verify(given)
        except AccessError as error:
            self._refused(error, digest(given) if given else None)
            raise
        if self.listeners:
            self._accepted(caller, digest(given))
        return caller

    def refuse(self, error: AccessError, connection: HTTPConnection) -> Exception:
        """Log a refusal, tell the listeners, and return the exception that FastAPI answers."""
        self._refused(error, self._digest(connection.scope))
        return refusal(error, connection, auth_scheme=self.verifier.settings.auth_scheme)

    def is_old_cookie(self, error: AccessError, scope: Scope) -> bool:
        """Check whether a token was refused that came as a cookie, which a browser sends whatever its age."""
        sources = self.verifier.settings.token_sources
        return isinstance(error, CredentialError) and not is_from_header(scope["headers"], sources)

    def ignore(self, error: AccessError, connection: HTTPConnection) -> None:
        """Log and tell that a request goes on without a caller though it has a token."""
        self._refused(error, self._digest(connection.scope), optional=True)

    def _accepted(self, caller: U | ServiceClaims, name: str) -> None:
        kind: Literal["user", "service"] = "user" if isinstance(caller, UserClaims) else "service"
        now = self.verifier.keys.clock.now()
        tell(self.listeners, RequestAccepted(at=now, caller=kind, token_digest=name), logger)

    def _refused(self, error: AccessError, name: str | None, *, optional: bool = False) -> None:
        log_refusal(error, name, optional=optional)
        if self.listeners:
            event = RequestRejected(
                at=self.verifier.keys.clock.now(),
                reason=error.reason,
                token_digest=name,
                unverified=error.unverified,
                optional=optional,
            )
            tell(self.listeners, event, logger)

    def _digest(self, scope: Scope) -> str | None:
        try:
            token = find_token(scope["headers"], self.verifier.settings.token_sources)
        except AccessError:
            return None
        return digest(token) if token else None


def _as_bytes(token: Any) -> bytes:
    if token is None:
        raise MissingToken("there is no token")
    if isinstance(token, bytes):
        return token
    if not isinstance(token, str):
        raise MalformedToken(f"a token is str or bytes, not {type(token).__name__}")
    return token[: MAX_TOKEN + 1].encode(errors="replace")
