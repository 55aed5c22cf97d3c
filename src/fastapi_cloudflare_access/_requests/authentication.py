"""Authentication of a request: once per request, with its log record and event."""

import logging
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Generic, Literal, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_cloudflare_access._logging import Place, emit, log, place_of
from fastapi_cloudflare_access._requests.open_streams import Check, OpenStreams, Validity
from fastapi_cloudflare_access._requests.responses import log_refusal, to_exception
from fastapi_cloudflare_access._verification.request_token import (
    COOKIE,
    HEADER,
    Headers,
    find_token,
    is_from_header,
    short_digest,
    unread_source,
)
from fastapi_cloudflare_access._verification.token import MAX_TOKEN
from fastapi_cloudflare_access._verifier import AwaitingKey, Outcome, U, Verifier
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, CredentialError, MalformedToken, MissingToken, PolicyDenied
from fastapi_cloudflare_access.events import FormerTeamDomainSeen, RequestAccepted, RequestRejected
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import Decision, Policy
from fastapi_cloudflare_access.policies.logic import Subject, split_paths
from fastapi_cloudflare_access.protocols import Listener, Telemetry
from fastapi_cloudflare_access.settings import TokenSource

logger = logging.getLogger("fastapi_cloudflare_access")

OUTCOMES = "fastapi_cloudflare_access.outcomes"
"""The private key of the scope under which each authenticator keeps its outcome."""

FORMER_NAME_INTERVAL = 3600.0
"""Seconds between two events about one former name of the team, at least."""

_NOT_ASKED: tuple[Any, Any, Any] = (None, None, None)


def replace_headers(scope: Scope, headers: list[tuple[bytes, bytes]]) -> Scope:
    """Return a copy of a scope with other headers; the callers that the present ones authenticated stay."""
    present = scope["headers"]
    kept: dict[Any, Any] = {}
    for who, outcome in scope.get(OUTCOMES, {}).items():
        if are_same(outcome[0], present):
            kept[who] = (headers, *outcome[1:])
    return {**scope, "headers": headers, OUTCOMES: kept}


class Authenticator(Generic[U]):
    """Authenticates requests for one `CloudflareAccess`; the outcome of another object is never reused.

    Attributes:
        verifier: The verifier; the testing kit can replace it.
        listeners: The functions that receive events.
        open_streams: The streams that end with their tokens.
    """

    def __init__(self, verifier: Verifier[U], listeners: Sequence[Listener]) -> None:
        """Create an authenticator."""
        self.verifier = verifier
        self.listeners = listeners
        self.open_streams = OpenStreams(listeners)
        telemetry = [each for each in listeners if hasattr(type(each), "record_verification")]
        self._recorders = tuple(each.record_verification for each in cast("list[Telemetry]", telemetry))
        self._without_recorder = tuple(each for each in listeners if each not in telemetry)
        self._former_names: dict[str, float] = {}
        self._has_missed_token = False
        self._validity: ContextVar[Validity | None] = ContextVar("cloudflare_access_validity", default=None)
        if verifier.revocations is not None:
            verifier.revocations.on_change(self.end_revoked_streams)

    @property
    def members(self) -> tuple["Authenticator[Any]", ...]:
        """The authenticators that verify: this one, or those that it chooses from."""
        return (self,)

    @property
    def token_sources(self) -> tuple[TokenSource, ...]:
        """The places that a token is read from."""
        return self.verifier.settings.token_sources

    @property
    def user_models(self) -> tuple[type[UserClaims], ...]:
        """The models of users' claims."""
        return (self.verifier.user_model,)

    async def outcome(self, scope: Scope) -> Outcome[U]:
        """Return the caller of a request, the error, or None without a token; a token is verified once per request."""
        outcomes: Any = scope.get(OUTCOMES)
        if outcomes is None:
            outcomes = scope[OUTCOMES] = {}
        headers = scope["headers"]
        cached_headers, cached_outcome, validity = outcomes.get(self, _NOT_ASKED)
        outcome: Outcome[U] = cached_outcome
        if not are_same(cached_headers, headers):  # not asked yet, or a copy of the scope with other headers
            verifier = self.verifier
            if verifier.revocations is not None and verifier.revocations.is_read_due:
                await verifier.revocations.catch_up()
            recorders = self._recorders
            started_at = verifier.keys.clock.monotonic() if recorders else 0.0
            checks = verifier.signature_checks
            found = verifier.authenticate_at_once(headers)
            is_cached = checks == verifier.signature_checks
            outcome = await verifier.authenticate_after_fetch(found) if isinstance(found, AwaitingKey) else found
            if verifier.rechecks and isinstance(outcome, UserClaims):
                token = find_token(headers, verifier.settings.token_sources) or b""
                outcome = await verifier.recheck(token, outcome) or outcome
            if recorders and outcome is not None:
                self._record(outcome, started_at, is_cached=is_cached and outcome is found)
            validity = Validity(outcome, scope["type"] == "websocket")
            outcomes[self] = headers, outcome, validity
            if outcome is not None and not isinstance(outcome, AccessError):
                scope.setdefault("state", {})["cloudflare_access"] = outcome
                self._accepted(outcome, scope)
        if self._validity.get() is not validity:
            self._validity.set(validity)
        return outcome

    async def identity(self, scope: Scope, user: UserClaims) -> Identity | AccessError:
        """Return the identity of the verified user of a request, or why there is none."""
        return await self.verifier.identity(scope["headers"], user)

    def decision(self, policy: Policy, caller: Any, scope: Scope) -> Decision:  # noqa: ARG002 - another class chooses by it
        """Return the decision of a policy by the token alone."""
        return policy.decide(Subject(caller, split_paths(self.verifier.settings.group_claims)))

    async def decide(self, policies: Sequence[Policy], caller: Any, scope: Scope) -> list[Decision] | AccessError:
        """Return the decision of each policy; the identity is asked only if a policy needs it.

        An error means that it is needed, and cannot be had.
        """
        subject = Subject(caller, split_paths(self.verifier.settings.group_claims))
        decisions = [policy.decide(subject) for policy in policies]
        if Decision.UNKNOWN not in decisions or not isinstance(caller, UserClaims):
            return decisions
        identity = await self.identity(scope, caller)
        if isinstance(identity, AccessError):
            return identity
        informed = subject._replace(identity=identity)
        pairs = zip(policies, decisions, strict=True)
        return [policy.decide(informed) if first is Decision.UNKNOWN else first for policy, first in pairs]

    async def verify(self, token: str | bytes | None) -> U | ServiceClaims:
        """Return the caller that a token identifies, with the same log and events as a request.

        Raises:
            AccessError: The token is not valid, or its key cannot be fetched right now.
        """
        given = b""
        verifier = self.verifier
        started_at = verifier.keys.clock.monotonic() if self._recorders else 0.0
        try:
            given = _as_bytes(token)
            if verifier.revocations is not None and verifier.revocations.is_read_due:
                await verifier.revocations.catch_up()
            checks = verifier.signature_checks
            caller = await verifier.verify(given)
            is_cached = checks == verifier.signature_checks
            if verifier.rechecks and isinstance(caller, UserClaims):
                error = await verifier.recheck(given, caller)
                if error is not None:
                    raise error
        except AccessError as error:
            if given:
                self._record(error, started_at)
            self.refuse_call(error, given)
            raise
        self._record(caller, started_at, is_cached=is_cached)
        self._accepted(caller, given)
        if (outer := self._validity.get()) is not None:
            outer = outer.outer or outer
        self._validity.set(Validity(caller, outer is not None and outer.is_websocket, outer))
        return caller

    async def verify_again(self, token: str | bytes | None, validity: Validity) -> U | ServiceClaims:
        """Return the caller that a fresh token identifies, if it is the same caller and the same policies admit it.

        Raises:
            AccessError: The token is not valid, or cannot be checked right now, or its caller is refused.
        """
        caller = await self.verify(token)
        given = _as_bytes(token)
        if error := await self._why_not_renewed(validity, caller, given):
            self.refuse_call(error, given)
            raise error
        return caller

    async def _why_not_renewed(
        self, validity: Validity, caller: UserClaims | ServiceClaims, token: bytes
    ) -> AccessError | None:
        known = validity.newest
        if isinstance(known, UserClaims) != isinstance(caller, UserClaims) or known.principal != caller.principal:
            return PolicyDenied("the fresh token is of another caller")
        in_header = "header" in self.token_sources
        header = (HEADER.lower().encode(), token) if in_header else (b"cookie", f"{COOKIE}=".encode() + token)
        connection = HTTPConnection({"type": "http", "headers": [header]})
        for check in validity.checks:
            if error := await check(caller, connection):
                return error
        return None

    def validity_of(self, caller: object) -> "tuple[Authenticator[Any], Validity] | None":
        """Return the validity of claims that were verified in the current context, and by which authenticator."""
        latest = self._validity.get()
        for validity in (latest and latest.outer, latest):
            if validity is not None and (validity.caller is caller or validity.newest is caller):
                return self, validity
        return None

    def add_check(self, check: Check, scope: Scope) -> None:  # noqa: ARG002 - where several objects are one, it chooses
        """Remember a policy that admitted the caller of the current request: it also decides on a fresh token."""
        validity = cast("Validity", self._validity.get())
        if check not in validity.checks:  # a policy may be asked for each message of a WebSocket
            validity.checks = (*validity.checks, check)

    def end_revoked_streams(self) -> None:
        """End the open streams whose callers have been revoked."""
        self.open_streams.end_streams_of(self.verifier.is_revoked)

    def refuse(self, error: AccessError, connection: HTTPConnection) -> Exception:
        """Log a refusal, emit its event, and return the exception to raise."""
        error = self._explained(error, connection.scope)
        self._refused(error, self._digest(connection.scope), place_of(connection.scope))
        return to_exception(error, connection, auth_scheme=self.verifier.settings.auth_scheme)

    def refuse_call(self, error: AccessError, token: bytes) -> None:
        """Log the refusal of a token that did not come with a request, and emit its event."""
        self._refused(error, short_digest(token) if token else None, Place())

    def is_rejected_cookie(self, error: AccessError, scope: Scope) -> bool:
        """Check whether the token was a cookie and was rejected; a browser also sends cookies that have expired."""
        sources = self.verifier.settings.token_sources
        return isinstance(error, CredentialError) and not is_from_header(scope["headers"], sources)

    def ignore(self, error: AccessError, connection: HTTPConnection) -> None:
        """Log and emit that a request goes on without a caller, although it has a token."""
        self._refused(error, self._digest(connection.scope), place_of(connection.scope), optional=True)

    def _record(self, outcome: U | ServiceClaims | AccessError, started_at: float, *, is_cached: bool = False) -> None:
        """Pass the duration and the result of a verification to the listeners that measure.

        Args:
            outcome: The result.
            started_at: Monotonic time at the start.
            is_cached: Whether no signature was checked. If another thread checked one at that moment, a hit is a miss.
        """
        if not self._recorders:
            return
        seconds = self.verifier.keys.clock.monotonic() - started_at
        caller: Literal["user", "service"] | None = None
        reason = None
        if isinstance(outcome, AccessError):
            reason, is_cached = outcome.reason, False
        else:
            caller = "user" if outcome.sub else "service"
        for record in self._recorders:
            try:
                record(seconds, caller, reason, is_cached)
            except Exception:  # noqa: BLE001 - a listener may raise anything
                log(logger, logging.ERROR, "cf-access called a listener that failed at a verification", exc_info=True)

    def _accepted(self, caller: U | ServiceClaims, source: Scope | bytes) -> None:
        """Emit that a token was accepted: that of a request, or these bytes."""
        settings = self.verifier.settings
        if caller.iss != settings.issuer and caller.iss in settings.former_team_domains:
            self._former_name_seen(caller.iss)
        if self._without_recorder:
            kind: Literal["user", "service"] = "user" if isinstance(caller, UserClaims) else "service"
            digest = short_digest(source) if isinstance(source, bytes) else self._digest(source) or ""
            now = self.verifier.keys.clock.now()
            emit(self._without_recorder, RequestAccepted(timestamp=now, caller=kind, token_digest=digest), logger)

    def _former_name_seen(self, issuer: str) -> None:
        """Log and emit once an hour that a token carries a former name of the team."""
        clock = self.verifier.keys.clock
        if clock.monotonic() < self._former_names.get(issuer, float("-inf")) + FORMER_NAME_INTERVAL:
            return
        self._former_names[issuer] = clock.monotonic()
        log(logger, logging.INFO, "cf-access still sees tokens of %s, a former name of the team", issuer)
        emit(self.listeners, FormerTeamDomainSeen(timestamp=clock.now(), issuer=issuer), logger)

    def _refused(self, error: AccessError, token_digest: str | None, place: Place, *, optional: bool = False) -> None:
        is_first = isinstance(error, MissingToken) and not self._has_missed_token
        self._has_missed_token = self._has_missed_token or is_first
        log_refusal(error, token_digest, place, optional=optional, is_first=is_first)
        if self.listeners:
            event = RequestRejected(
                timestamp=self.verifier.keys.clock.now(),
                reason=error.reason,
                token_digest=token_digest,
                unverified=error.unverified,
                optional=optional,
                method=place.method,
                route=place.route,
                policy=getattr(error, "policy", None),
            )
            emit(self.listeners, event, logger)

    def _explained(self, error: AccessError, scope: Scope) -> AccessError:
        """Return the error; if the only token of the request is where none is read, with a message that says so."""
        sources = self.verifier.settings.token_sources
        if isinstance(error, MissingToken) and (unread := unread_source(scope["headers"], sources)):
            return MissingToken(unread)
        return error

    def _digest(self, scope: Scope) -> str | None:
        try:
            token = find_token(scope["headers"], self.verifier.settings.token_sources)
        except AccessError:
            return None
        return short_digest(token) if token else None


def are_same(cached: Headers | None, headers: Headers) -> bool:
    """Check whether a result for these headers was kept; Starlette's `Headers(scope=…)` replaces the list by a copy."""
    return cached is headers or (cached is not None and [*cached] == [*headers])


def _as_bytes(token: Any) -> bytes:
    if token is None:
        raise MissingToken("there is no token")
    if isinstance(token, bytes):
        return token
    if not isinstance(token, str):
        raise MalformedToken(f"a token is str or bytes, not {type(token).__name__}")
    return token[: MAX_TOKEN + 1].encode(errors="replace")
