"""The base of the access objects: dependencies, policies, authentication and the lifespan."""

import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Generic, Never, Self, TypeAlias

from fastapi import WebSocket
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from fastapi_cloudflare_access._calls import or_write
from fastapi_cloudflare_access._not_a_dependency import NotADependency
from fastapi_cloudflare_access._policy import Policy, check_policy, policy_name, unasked_model
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._requests.responses import RESPONSES
from fastapi_cloudflare_access._routes.check import misuse_of, misuses
from fastapi_cloudflare_access._verifier import U
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.dependencies import (
    CALLERS,
    Dependency,
    IdentityDependency,
    OptionalDependency,
    RolesDependency,
)
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError, PolicyDenied
from fastapi_cloudflare_access.policies.roles import check_roles
from fastapi_cloudflare_access.streams import C, Lease, lease

logger = logging.getLogger("fastapi_cloudflare_access")

_NO_REQUEST: Any = None

Connection: TypeAlias = Request | WebSocket | HTTPConnection

_LIFESPAN = NotADependency("Depends(access.lifespan) admits every client: write Depends(access)")
_ASK = NotADependency("Depends(access.authenticate) would admit clients without a token: write Depends(access)")
_VERIFY = NotADependency("Depends(access.verify) would take the token from the query: write Depends(access)")
_LEASE = NotADependency(
    "Depends(access.while_valid) admits every client: write Depends(access), and `async with "
    "access.while_valid(caller)` in the handler"
)
_NO_POLICY = NotADependency("access.require… is not a dependency: write Depends(access.require(policy))")
_NO_ROLES = NotADependency("access.roles is not a dependency: write Depends(access.roles({'admin': policy}))")


class AccessBase(Dependency[U | ServiceClaims], Generic[U]):
    """The base of `CloudflareAccess` and `AnyAccess`.

    Attributes:
        user: The dependency that returns `UserClaims`; a service gets 403.
        service: The dependency that returns `ServiceClaims`; a user gets 403.
        optional: The dependency that returns the claims, or None without a token or with a rejected cookie.
        identity: The dependency that returns the `Identity` of a user, from get-identity; a service gets 403.
    """

    user: Dependency[U]
    service: Dependency[ServiceClaims]
    optional: OptionalDependency[U]
    identity: IdentityDependency

    def _begin(self, authenticator: Authenticator[U]) -> None:
        """Initialise what copies must not share."""
        super().__init__(authenticator, name="access", models=CALLERS)
        self._required: dict[tuple[type[Any], type[Any], Policy], Dependency[Any]] = {}
        self._entered: list[AbstractAsyncContextManager[None]] = []

    def _add_dependencies(self, authenticator: Authenticator[U]) -> None:
        self.user = Dependency(authenticator, name="access.user", models=UserClaims)
        self.service = Dependency(authenticator, name="access.service", models=ServiceClaims)
        self.optional = OptionalDependency(authenticator, name="access.optional", models=CALLERS)
        self.identity = IdentityDependency(authenticator, name="access.identity", models=UserClaims)

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The `responses=` of a router or route: OpenAPI then documents 401, 403 and 503."""
        return deepcopy(dict(RESPONSES))

    @or_write("access.require takes one policy: write access.require(policy), and combine several by & or |")
    def require(
        self, policy: Annotated[Callable[[U | ServiceClaims], bool], _NO_POLICY]
    ) -> Dependency[U | ServiceClaims]:
        """Return the dependency that admits callers for which `policy(claims)` is true; others get 403.

        Equal policies get the same object.

        Raises:
            ConfigurationError: The policy cannot be called with the claims, or is not hashable.
        """
        return self._require(CALLERS, policy, "require")

    @or_write("access.require_user takes one policy: write access.require_user(policy), and combine several by & or |")
    def require_user(self, policy: Annotated[Callable[[U], bool], _NO_POLICY]) -> Dependency[U]:
        """Return the dependency that admits users for which `policy(claims)` is true; others get 403.

        Raises:
            ConfigurationError: The policy cannot be called with the claims, or is not hashable.
        """
        return self._require(UserClaims, policy, "require_user")

    @or_write(
        "access.require_service takes one policy: write access.require_service(policy), and combine several by & or |"
    )
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

    def roles(self, roles: Annotated[Mapping[str, Callable[[U | ServiceClaims], bool]], _NO_ROLES]) -> RolesDependency:
        """Return the dependency that returns the names of the roles that the caller has, a `frozenset`.

        It refuses no caller with a valid token: a caller without a role gets the empty set.

        Args:
            roles: The policy of each role, such as `{"admin": Group("admins") | Email("root@acme.example")}`.

        Raises:
            ConfigurationError: There is no role, or a name or a policy is wrong.
        """
        return RolesDependency(self._authenticator, check_roles(roles))

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

    def while_valid(self, caller: Annotated[C, _LEASE]) -> Lease[C]:
        """Return the context manager whose body ends with the token of a caller, or when it is revoked.

        `async with access.while_valid(caller) as lease:` closes a WebSocket with 1008 and the reason code, such as
        `token_expired`, and ends the generator of a stream without an exception. `await lease.renew(token)` goes on
        with a fresh token of the same caller.

        Args:
            caller: The claims that a dependency of this object returned.

        Raises:
            ConfigurationError: The caller is None, or was not verified by this object for this connection.
        """
        return lease(self._authenticator, caller)

    @or_write("access.lifespan needs the app, which FastAPI passes: write lifespan=access.lifespan, without ()")
    @asynccontextmanager
    async def lifespan(self, app: Annotated[object, _LIFESPAN]) -> AsyncGenerator[None]:
        """Keep the keys fresh while the app runs: `FastAPI(lifespan=access.lifespan)`.

        In your own lifespan write `async with access.lifespan(app):`. Nested use is reference-counted.

        Raises:
            ConfigurationError: A route of the app is declared in a way that would admit every client.
        """
        if mistakes := [*misuses(app, Dependency)]:
            raise ConfigurationError("; ".join(mistakes))
        async with self._running():
            yield

    if not TYPE_CHECKING:  # a type checker knows that only `async with` has a meaning

        def __enter__(self) -> Never:
            raise ConfigurationError("access is entered in async code only: write async with access:")

        def __exit__(self, *_: object) -> None: ...

    async def __aenter__(self) -> Self:
        """Fetch the keys and start to refresh them."""
        running = self._running()
        await running.__aenter__()
        self._entered.append(running)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop refreshing the keys after the last exit."""
        if not self._entered:
            raise ConfigurationError("access was exited without being entered: write `async with access:`")
        await self._entered.pop().__aexit__(None, None, None)

    @abstractmethod
    def _running(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which the keys are kept fresh."""

    async def readiness(self, request: HTTPConnection = _NO_REQUEST) -> Response:
        """Answer a readiness probe: 200 if tokens can be verified, else 503.

        Add it with `app.add_route("/ready", access.readiness)`, to which dependencies of the whole app do not apply, or
        with `add_api_route`. Without usable keys it fetches them, and waits for at most `key_wait_timeout`.

        Raises:
            AccessHTTPException: It was declared as a dependency, which would admit every client.
        """
        if request is not _NO_REQUEST:
            self._check_is_endpoint(request)
        return await self._readiness()

    @abstractmethod
    async def _readiness(self) -> Response: ...

    def _check_is_endpoint(self, request: HTTPConnection) -> None:
        """Refuse every caller if this is a dependency of another endpoint."""
        if request.scope.get("endpoint") == self.readiness:
            return
        if mistake := misuse_of(request.scope, Dependency):
            logger.error("refused, since the route is wrongly declared: %s", mistake)
            raise self._authenticator.refuse(PolicyDenied("readiness is not a dependency"), request)
