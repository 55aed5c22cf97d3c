"""`CloudflareAccess`, which is the dependency, the key source and the lifespan in one object."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from copy import copy, deepcopy
from types import TracebackType
from typing import Annotated, Any, Generic, Never, Self, TypeAlias, cast

from fastapi import WebSocket
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from fastapi_cloudflare_access._authentication import Authenticator
from fastapi_cloudflare_access._clock import is_clock
from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._not_a_dependency import NotADependency
from fastapi_cloudflare_access._policy import Policy, check_policy, is_async, policy_name, unasked_model
from fastapi_cloudflare_access._responses import RESPONSES, readiness
from fastapi_cloudflare_access._route_check import misuse_of, misuses
from fastapi_cloudflare_access._verifier import U, Verifier
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.dependencies import CALLERS, Dependency, OptionalDependency
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError, PolicyDenied
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Clock, Fetch, Listener
from fastapi_cloudflare_access.settings import (
    GROUP_CLAIMS,
    KeySettings,
    Settings,
    TokenSource,
    left_out,
    unknown_setting,
)

_GROUP_CLAIMS: Any = left_out(GROUP_CLAIMS)
_TOKEN_SOURCES: Any = left_out(("header", "cookie"))
_NO_REQUEST: Any = None

logger = logging.getLogger("fastapi_cloudflare_access")

Connection: TypeAlias = Request | WebSocket | HTTPConnection

_ASK = NotADependency("Depends(access.authenticate) would admit clients without a token: write Depends(access)")
_VERIFY = NotADependency("Depends(access.verify) would take the token from the query: write Depends(access)")
_NO_POLICY = NotADependency("access.require… is not a dependency: write Depends(access.require(policy))")
_COPY = NotADependency("Depends(access.with_audience) admits every client: write Depends(access.with_audience(…))")
_LIFESPAN = NotADependency("Depends(access.lifespan) admits every client: write Depends(access)")


class CloudflareAccess(Dependency[U | ServiceClaims], Generic[U]):
    """Admits only callers that Cloudflare Access has authenticated.

    The object itself is a dependency: `Depends(access)` returns `UserClaims` or `ServiceClaims`, or raises 401.
    Create it once, where the app is defined.

    Attributes:
        user: The dependency that returns `UserClaims`; a service gets 403.
        service: The dependency that returns `ServiceClaims`; a user gets 403.
        optional: The dependency that returns the claims, or None without a token or with a rejected cookie.

    Examples:
        ```python
        from typing import Annotated

        from fastapi import Depends, FastAPI

        from fastapi_cloudflare_access import CloudflareAccess, UserClaims

        access = CloudflareAccess()  # CF_ACCESS_TEAM_DOMAIN and CF_ACCESS_AUDIENCE are set
        app = FastAPI(lifespan=access.lifespan)


        @app.get("/me")
        async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
            return user.email
        ```
    """

    user: Dependency[U]
    service: Dependency[ServiceClaims]
    optional: OptionalDependency[U]

    def __init__(  # noqa: PLR0913 - every setting is visible in the signature
        self,
        *,
        team_domain: str = left_out(),
        audience: str | Sequence[str] = left_out(),
        user_model: type[U] = UserClaims,  # type: ignore[assignment]  # pyright: ignore - fits the default of U
        group_claims: Sequence[str] = _GROUP_CLAIMS,
        token_sources: TokenSource | Sequence[TokenSource] = _TOKEN_SOURCES,
        exp_leeway: float = left_out(10.0),
        nbf_leeway: float = left_out(30.0),
        auth_scheme: str = left_out("Cloudflare-Access"),
        token_cache_size: int = left_out(1024),
        key_settings: KeySettings | None = None,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
        **unknown: Never,
    ) -> None:
        """Check the settings; nothing is fetched.

        Each setting that is left out is read from `CF_ACCESS_<NAME>`; [`Settings`][fastapi_cloudflare_access.settings]
        describes them.

        Args:
            team_domain: The team: `acme`, `acme.cloudflareaccess.com`, or a loopback origin.
            audience: The AUD tag of the application, or several.
            user_model: Your own subclass of `UserClaims`, with typed `custom` claims.
            group_claims: Paths of the claims in which policies look for groups.
            token_sources: Where the token is read from: `header`, `cookie` or both.
            exp_leeway: Seconds for which a token is accepted after `exp`.
            nbf_leeway: Seconds by which `nbf` and `iat` may be in the future.
            auth_scheme: The auth-scheme of `WWW-Authenticate`.
            token_cache_size: Number of verified tokens that are kept; 0 for none.
            key_settings: The numbers of the key source.
            fetch: The function that fetches the keys; by default with httpx.
            clock: The source of time; by default the machine's clocks.
            listeners: Functions that are called with each event, such as `RequestRejected`.
            **unknown: Not accepted; the error names the closest setting.

        Raises:
            ConfigurationError: A setting is missing or wrong.
        """
        if unknown:
            raise ConfigurationError("; ".join(unknown_setting(name, "CloudflareAccess") for name in sorted(unknown)))
        _check_user_model(user_model)
        _check_ports(fetch, clock, listeners)
        settings = Settings.load(
            team_domain=team_domain,
            audience=audience,
            group_claims=group_claims,
            token_sources=token_sources,
            exp_leeway=exp_leeway,
            nbf_leeway=nbf_leeway,
            auth_scheme=auth_scheme,
            token_cache_size=token_cache_size,
            **{} if key_settings is None else {"key_settings": key_settings},
        )
        keys = KeySource(settings, fetch=fetch, clock=clock, listeners=tuple(listeners))
        authenticator = Authenticator(Verifier(settings, keys=keys, user_model=user_model), tuple(listeners))
        self._begin(authenticator)
        self.user = Dependency(authenticator, name="access.user", models=UserClaims)
        self.service = Dependency(authenticator, name="access.service", models=ServiceClaims)
        self.optional = OptionalDependency(authenticator, name="access.optional", models=CALLERS)
        _log_warnings(settings)

    def _begin(self, authenticator: Authenticator[U]) -> None:
        """Initialise what copies must not share."""
        super().__init__(authenticator, name="access", models=CALLERS)
        self._started: list[Verifier[U]] = []
        self._required: dict[tuple[type[Any], type[Any], Policy], Dependency[Any]] = {}

    def __repr__(self) -> str:
        audience = ", ".join(self.settings.audience)
        return f"<{type(self).__name__} team_domain={self.settings.issuer!r} audience={audience!r}>"

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._authenticator.verifier.settings

    @property
    def user_model(self) -> type[U]:
        """The model of a user's claims."""
        return self._authenticator.verifier.user_model

    @property
    def keys(self) -> KeySource:
        """The key source: `health()`, `refresh()`, `seed()` and `export()`."""
        return self._authenticator.verifier.keys

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The `responses=` of a router or route: OpenAPI then documents 401, 403 and 503."""
        return deepcopy(dict(RESPONSES))

    def require(
        self, policy: Annotated[Callable[[U | ServiceClaims], bool], _NO_POLICY]
    ) -> Dependency[U | ServiceClaims]:
        """Return the dependency that admits callers for which `policy(claims)` is true; others get 403.

        Equal policies get the same object.

        Raises:
            ConfigurationError: The policy cannot be called with the claims, or is not hashable.
        """
        return self._require(CALLERS, policy, "require")

    def require_user(self, policy: Annotated[Callable[[U], bool], _NO_POLICY]) -> Dependency[U]:
        """Return the dependency that admits users for which `policy(claims)` is true; others get 403.

        Raises:
            ConfigurationError: The policy cannot be called with the claims, or is not hashable.
        """
        return self._require(UserClaims, policy, "require_user")

    def require_service(
        self, policy: Annotated[Callable[[ServiceClaims], bool], _NO_POLICY]
    ) -> Dependency[ServiceClaims]:
        """Return the dependency that admits services for which `policy(claims)` is true; others get 403.

        Raises:
            ConfigurationError: The policy cannot be called with the claims, or is not hashable.
        """
        return self._require(ServiceClaims, policy, "require_service")

    def _require(self, models: Any, policy: Any, name: str) -> Dependency[Any]:
        check_policy(policy)
        asked = CALLERS if models is CALLERS else (models,)
        if unasked := unasked_model(policy, asked):
            only = "require_user" if unasked is ServiceClaims else "require_service"
            raise ConfigurationError(
                f"the policy {policy_name(policy)} does not take {unasked.__name__}, about which access.{name} asks it "
                f"too: write access.{only}(…), or annotate its parameter with both"
            )
        key: Any = (models, type(policy), policy)  # objects of different types may compare equal
        node: Dependency[Any] = Dependency(self._authenticator, name=f"access.{name}(…)", models=models, policy=policy)
        return self._required.setdefault(key, node)

    def with_audience(self, *audience: Annotated[str, _COPY]) -> Self:
        """Return a copy for other applications of the same team; it shares the key source.

        The copy has its own dependencies, policies and token cache; other attributes are copied.

        Raises:
            ConfigurationError: An audience is missing or wrong.
        """
        mine = self._authenticator
        settings = self.settings.with_audience(audience)
        _log_warnings(settings)
        verifier = Verifier(settings, keys=self.keys, user_model=self.user_model)
        other = copy(self)
        other._begin(Authenticator(verifier, mine.listeners))  # noqa: SLF001 - of this class
        for name, value in vars(self).items():
            if isinstance(value, Dependency) and value.belongs_to(mine):
                setattr(other, name, value.for_authenticator(other._authenticator))  # noqa: SLF001 - the same
            elif name != "_required" and _holds_dependency_of(value, mine):
                raise ConfigurationError(
                    f"with_audience cannot copy the attribute {name}, which holds dependencies for another audience: "
                    "keep each of them in an attribute of its own"
                )
        return other

    async def authenticate(self, connection: Annotated[Connection, _ASK]) -> U | ServiceClaims | None:
        """Return the caller of a request or of a WebSocket handshake, or None if it carries no token.

        For code that has a connection, such as your own dependencies and handlers: FastAPI turns the exception into the
        response. Middleware must catch it, or the client gets 500. A token is verified once per request; the claims
        are then also on `request.state.cloudflare_access`, even if a policy refuses them.

        Raises:
            AccessHTTPException: The token is not valid, or cannot be checked right now.
            AccessWebSocketException: The same, if the server can only close the handshake.
        """
        outcome = await self._authenticator.outcome(connection.scope)
        if isinstance(outcome, AccessError):
            raise self._authenticator.refuse(outcome, connection)
        return outcome

    async def verify(self, token: Annotated[str | bytes, _VERIFY]) -> U | ServiceClaims:
        """Return the caller that a token identifies, for code without a request.

        The rules, the cache, the log records and the events are those of a request.

        Raises:
            CredentialError: The token is not valid; `reason` is the reason code.
            TemporarilyUnavailable: The token cannot be checked right now.
        """
        return await self._authenticator.verify(token)

    @asynccontextmanager
    async def lifespan(self, app: Annotated[object, _LIFESPAN]) -> AsyncGenerator[None]:
        """Keep the keys fresh while the app runs: `FastAPI(lifespan=access.lifespan)`.

        In your own lifespan write `async with access:`. Nested use is reference-counted.

        Raises:
            ConfigurationError: A route of the app is declared in a way that would admit every client.
        """
        if mistakes := [*misuses(app, Dependency)]:
            raise ConfigurationError("; ".join(mistakes))
        verifier = self._authenticator.verifier
        await verifier.start()
        try:
            yield
        finally:
            await verifier.stop()

    async def __aenter__(self) -> Self:
        """Fetch the keys and start to refresh them."""
        verifier = self._authenticator.verifier
        await verifier.start()
        self._started.append(verifier)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop refreshing the keys after the last exit."""
        if not self._started:
            raise ConfigurationError("access was exited without being entered: write `async with access:`")
        await self._started.pop().stop()

    async def readiness(self, request: HTTPConnection = _NO_REQUEST) -> Response:
        """Answer a readiness probe: 200 if tokens can be verified, else 503.

        Add it with `app.add_route("/ready", access.readiness)`, to which dependencies of the whole app do not apply, or
        with `add_api_route`. Without usable keys it fetches them, and waits for at most `key_wait_timeout`.

        Raises:
            AccessHTTPException: It was declared as a dependency, which would admit every client.
        """
        if request is not _NO_REQUEST:
            self._check_is_endpoint(request)
        await self.keys.fetch_if_unusable()
        return readiness(self.keys.health())

    def _check_is_endpoint(self, request: HTTPConnection) -> None:
        """Refuse every caller if this is a dependency of another endpoint."""
        if request.scope.get("endpoint") == self.readiness:
            return
        if mistake := misuse_of(request.scope, Dependency):
            logger.error("refused, since the route is wrongly declared: %s", mistake)
            raise self._authenticator.refuse(PolicyDenied("readiness is not a dependency"), request)


def _log_warnings(settings: Settings) -> None:
    for warning in settings.warnings:
        log(logger, logging.WARNING, "%s", warning)


def _holds_dependency_of(value: Any, authenticator: Authenticator[Any]) -> bool:
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return False
    items = cast("Iterable[Any]", value.values() if isinstance(value, dict) else value)
    return any(isinstance(item, Dependency) and item.belongs_to(authenticator) for item in items)


def _check_user_model(model: Any) -> None:
    if not isinstance(model, type) or not issubclass(model, UserClaims):
        raise ConfigurationError("user_model must be a subclass of UserClaims")
    if model.model_config.get("extra") == "forbid":
        raise ConfigurationError(
            f"user_model {model.__name__} has extra='forbid', which refuses every token: Access adds claims that are "
            "not documented; remove it"
        )


def _check_ports(fetch: Any, clock: Any, listeners: Any) -> None:
    if fetch is not None and (not callable(fetch) or is_async(fetch)):
        raise ConfigurationError("fetch must be a Fetch: a function that returns an async context manager")
    if clock is not None and not is_clock(clock):
        raise ConfigurationError("clock must be a Clock: an object with now(), monotonic() and sleep()")
    functions: list[Any] = [*listeners] if isinstance(listeners, list | tuple) else [None]
    if any(not callable(each) or is_async(each) for each in functions):
        raise ConfigurationError("listeners must be a list of plain functions that take an event")
