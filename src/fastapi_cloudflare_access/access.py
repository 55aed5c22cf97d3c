"""The face towards FastAPI: one object that is the dependency, the key source and the lifespan."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from inspect import Parameter, Signature
from types import TracebackType
from typing import Annotated, Any, Generic, Self, TypeAlias, Unpack, overload

from fastapi import Depends
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from fastapi_cloudflare_access._answers import log_refusal, readiness, refusal
from fastapi_cloudflare_access._credentials import COOKIE, HEADER, Headers, digest, find_token
from fastapi_cloudflare_access._key_source import KeySource
from fastapi_cloudflare_access._policy import Policy, allows, check_policy, is_async
from fastapi_cloudflare_access._settings import Options, Settings, TokenSource
from fastapi_cloudflare_access._telling import tell
from fastapi_cloudflare_access._verifier import U, Verifier
from fastapi_cloudflare_access.claims import Claims, ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError, Forbidden, MissingToken, WrongCaller
from fastapi_cloudflare_access.health import EventListener, RequestRefused
from fastapi_cloudflare_access.protocols import Clock, Fetch

logger = logging.getLogger("fastapi_cloudflare_access")

Outcome: TypeAlias = U | ServiceClaims | AccessError | None

_VERIFIED = "fastapi_cloudflare_access.verified"
_SCHEMES: dict[TokenSource, tuple[APIKeyIn, str, str, str]] = {
    "header": (
        APIKeyIn.header,
        HEADER,
        "CloudflareAccessHeader",
        "The token that Cloudflare Access adds to a request.",
    ),
    "cookie": (APIKeyIn.cookie, COOKIE, "CloudflareAccessCookie", "The same token as the browser's cookie."),
}


class _Scheme(SecurityBase):
    """A node of the dependency tree that is at the same time an API-key scheme of OpenAPI."""

    def __init__(self, source: TokenSource) -> None:
        location, name, self.scheme_name, description = _SCHEMES[source]
        self.model = APIKey(**{"in": location}, name=name, description=description)  # type: ignore[arg-type]


class OptionalCaller(_Scheme, Generic[U]):
    """The root of the tree: the caller, or None where the request carries no token."""

    def __init__(self, access: "CloudflareAccess[U]") -> None:
        """Belong to `access`."""
        super().__init__(access.settings.token_sources[0])
        self._access = access

    @property
    def openapi_extra(self) -> dict[str, Any]:
        """What to give a route as its `openapi_extra`, so that OpenAPI shows it as open to anonymous callers too.

        FastAPI itself has no way to say that a security scheme is optional.
        """
        return {"security": [{}]}

    async def __call__(self, connection: HTTPConnection) -> U | ServiceClaims | None:
        """Verify the token, once for each request."""
        return await self._access.identify(connection)


class CloudflareAccess(_Scheme, Generic[U]):
    """Lets only callers in whom Cloudflare Access let through.

    The object is itself a dependency: `Depends(access)` gives `UserClaims` or `ServiceClaims`, or refuses with 401.

    Attributes:
        optional: The dependency that gives None where there is no token.
        user: The dependency that gives `UserClaims`, and refuses services with 403.
        service: The dependency that gives `ServiceClaims`, and refuses users with 403.
    """

    @overload
    def __init__(
        self: "CloudflareAccess[UserClaims]",
        *,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
        on_event: EventListener | None = None,
        **options: Unpack[Options],
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        user_claims: type[U],
        fetch: Fetch | None = None,
        clock: Clock | None = None,
        on_event: EventListener | None = None,
        **options: Unpack[Options],
    ) -> None: ...

    def __init__(
        self,
        *,
        user_claims: Any = UserClaims,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
        on_event: EventListener | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Check the settings; nothing is fetched.

        Args:
            user_claims: A subclass of `UserClaims` of your own, with typed `custom` claims.
            fetch: How the keys are fetched; by default with httpx.
            clock: Where time comes from; by default the machine's clocks.
            on_event: Called with each event: a request refused, a key added, a refresh failed, and so on.
            **options: The settings. `team_domain` and `audience`, where left out, are read from
                `CF_ACCESS_TEAM_DOMAIN` and `CF_ACCESS_AUDIENCE`.

        Raises:
            ConfigurationError: A setting is missing or wrong.
        """
        if not _is_user_model(user_claims):
            raise ConfigurationError("user_claims must be a subclass of UserClaims")
        _check_ports(fetch, clock, on_event)
        settings = Settings.load(**options)
        keys = KeySource(settings, fetch=fetch, clock=clock, on_event=on_event)
        model: type[U] = user_claims
        self._grow(Verifier(settings, keys=keys, user_claims=model), on_event)
        if settings.is_local:
            logger.warning("the Cloudflare Access team is a local one at %s: for development only", settings.issuer)

    def _grow(self, verifier: Verifier[U], on_event: EventListener | None) -> None:
        """Build the tree of dependencies: `optional` is the root, this object depends on it, the rest on this."""
        self._verifier = verifier
        self._on_event = on_event
        self._nodes: dict[tuple[type[Any], type[Any], Policy], Callable[..., Awaitable[Any]]] = {}
        super().__init__(verifier.settings.token_sources[-1])
        self.optional = OptionalCaller(self)
        self.__signature__ = Signature(
            [
                Parameter("connection", Parameter.KEYWORD_ONLY, annotation=HTTPConnection),
                Parameter("caller", Parameter.KEYWORD_ONLY, default=Depends(self.optional)),
            ]
        )
        self.user: Callable[..., Awaitable[U]] = self._node(UserClaims, name="user")
        self.service: Callable[..., Awaitable[ServiceClaims]] = self._node(ServiceClaims, name="service")

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._verifier.settings

    @property
    def user_claims(self) -> type[U]:
        """The model of a user's claims."""
        return self._verifier.user_claims

    @property
    def keys(self) -> KeySource:
        """The key source: `health()`, `refresh()`, `seed()` and `export()`."""
        return self._verifier.keys

    async def __call__(self, *, connection: HTTPConnection, caller: U | ServiceClaims | None) -> U | ServiceClaims:
        """Give the caller that `optional` found; FastAPI calls it."""
        if caller is None:
            raise self._refusal(MissingToken("there is no token"), connection)
        return caller

    def require(self, policy: Callable[[U | ServiceClaims], bool]) -> Callable[..., Awaitable[U | ServiceClaims]]:
        """Give the dependency that lets in whom `policy` says True of, and refuses others with 403.

        It is the same callable for equal policies.
        """
        return self._required(object, policy)

    def require_user(self, policy: Callable[[U], bool]) -> Callable[..., Awaitable[U]]:
        """Give the dependency that lets in users of whom `policy` says True, and refuses others with 403."""
        return self._required(UserClaims, policy)

    def require_service(self, policy: Callable[[ServiceClaims], bool]) -> Callable[..., Awaitable[ServiceClaims]]:
        """Give the dependency that lets in services of which `policy` says True, and refuses others with 403."""
        return self._required(ServiceClaims, policy)

    def with_audience(self, *audience: str) -> "CloudflareAccess[U]":
        """Give a sibling for other applications of the same team, over the same keys.

        It is made without `__init__`, so what a subclass of yours sets there is not on it.

        Raises:
            ConfigurationError: An audience is missing or wrong.
        """
        settings = self.settings.with_audience(audience)
        mine = self._verifier
        sibling: CloudflareAccess[U] = object.__new__(type(self))
        sibling._grow(Verifier(settings, keys=mine.keys, user_claims=mine.user_claims), self._on_event)
        return sibling

    async def identify(self, connection: HTTPConnection) -> U | ServiceClaims | None:
        """Give the caller of a request or WebSocket handshake, or None where it carries no token.

        For dependencies and handlers of your own, whose exceptions FastAPI answers; in a middleware nobody does, and a
        refusal would become a 500. A token is verified once for each request; the claims are then on
        `request.state.access` too.

        Raises:
            AccessRefused: The token is refused, or cannot be checked right now.
            AccessRefusedWebSocket: The same, for a server that can only close a handshake.
        """
        outcome = await self._outcome_once(connection.scope)
        if isinstance(outcome, AccessError):
            raise self._refusal(outcome, connection)
        return outcome

    async def _outcome_once(self, scope: Scope) -> "Outcome[U]":
        verified: dict[CloudflareAccess[Any], Outcome[U]] = scope.setdefault(_VERIFIED, {})
        if self not in verified:
            verified[self] = outcome = await self._outcome(scope["headers"])
            if isinstance(outcome, Claims):
                scope.setdefault("state", {})["access"] = outcome
        return verified[self]

    async def _outcome(self, headers: Headers) -> "Outcome[U]":
        """Verify without raising: the frames of a traceback would hold the token."""
        try:
            token = find_token(headers, self.settings.token_sources)
            return None if token is None else await self._verifier.verify(token)
        except AccessError as error:
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)

    def _refusal(self, error: AccessError, connection: HTTPConnection) -> Exception:
        name = _digest(connection, self.settings.token_sources)
        log_refusal(error, name)
        tell(self._on_event, RequestRefused(at=self.keys.clock.now(), reason=error.reason, token_digest=name), logger)
        return refusal(error, connection, challenge=self.settings.challenge)

    def _required(self, kind: type[Any], policy: Any) -> Callable[..., Awaitable[Any]]:
        check_policy(policy)
        # policies of different types may compare equal
        key = (kind, type(policy), policy)  # pyright: ignore[reportUnknownVariableType]
        return self._nodes.setdefault(key, self._node(kind, policy))  # pyright: ignore[reportUnknownArgumentType]

    def _node(
        self, kind: type[Any], policy: Policy | None = None, *, name: str = "require"
    ) -> Callable[..., Awaitable[Any]]:
        async def caller_of_kind(connection: HTTPConnection, caller: Annotated[Claims, Depends(self)]) -> Any:
            if not isinstance(caller, kind):
                raise self._refusal(WrongCaller("the caller is of the other kind"), connection)
            if policy is not None and not allows(policy, caller):
                raise self._refusal(Forbidden("the policy refused the caller"), connection)
            return caller

        caller_of_kind.__name__ = caller_of_kind.__qualname__ = f"access.{name}"
        return caller_of_kind

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:  # noqa: ARG002 - FastAPI passes it
        """Keep the keys fresh while the app runs: `FastAPI(lifespan=access.lifespan)`.

        In a lifespan of your own write `async with access:`. Entered twice, it is counted.
        """
        async with self:
            yield

    async def __aenter__(self) -> Self:
        """Fetch the keys and begin to refresh them."""
        await self.keys.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop refreshing the keys, where nobody else entered."""
        await self.keys.stop()

    async def readiness(self) -> Response:
        """Answer a readiness probe: 200 where tokens can be checked, else 503.

        Mount it with `app.add_api_route("/ready", access.readiness)`.
        """
        return readiness(self.keys.health())


def _is_user_model(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, UserClaims)


def _check_ports(fetch: Any, clock: Any, on_event: Any) -> None:
    if fetch is not None and (not callable(fetch) or is_async(fetch)):
        raise ConfigurationError("fetch must be a Fetch: a function that gives an async context manager")
    if clock is not None and not all(callable(getattr(clock, name, None)) for name in ("now", "monotonic", "sleep")):
        raise ConfigurationError("clock must be a Clock: an object with now(), monotonic() and sleep()")
    if on_event is not None and (not callable(on_event) or is_async(on_event)):
        raise ConfigurationError("on_event must be a plain function that takes an event")


def _digest(connection: HTTPConnection, sources: tuple[TokenSource, ...]) -> str | None:
    try:
        token = find_token(connection.scope["headers"], sources)
    except AccessError:
        return None
    return digest(token) if token else None
