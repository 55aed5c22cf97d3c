"""The dependencies. Each is one node for FastAPI: a callable without sub-dependencies that authenticates the request.

They are subclasses of `fastapi.params.Depends` for one reason: FastAPI recognises them if `Depends(…)` was forgotten.
It then reads the property `dependency`, which raises an error that says what to write.
"""

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine
from copy import copy
from types import NoneType
from typing import Any, Generic, Never, NoReturn, Self, TypeAlias, TypeVar, cast

from fastapi import params
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._not_a_dependency import AbsentAttribute, forbid_as_dependency
from fastapi_cloudflare_access._policy import Policy as PolicyFunction
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._routes.check import misuse_of
from fastapi_cloudflare_access._verification.request_token import COOKIE, HEADER, other_credentials
from fastapi_cloudflare_access._verifier import Outcome, U
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import (
    AccessError,
    ConfigurationError,
    MissingToken,
    PolicyDenied,
    WrongCallerType,
)
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import Decision, Policy
from fastapi_cloudflare_access.policies.logic import as_policy, check_claims_are_kept, claims_read, split_paths
from fastapi_cloudflare_access.policies.roles import Roles
from fastapi_cloudflare_access.settings import TokenSource

logger = logging.getLogger("fastapi_cloudflare_access")

T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

_SCHEMES: dict[TokenSource, tuple[APIKeyIn, str, str]] = {
    "header": (
        APIKeyIn.header,
        HEADER,
        f"The token that Cloudflare Access adds to a request; also read from {COOKIE}.",
    ),
    "cookie": (APIKeyIn.cookie, COOKIE, "The token of Cloudflare Access, as the browser's cookie."),
}
CALLERS = (UserClaims, ServiceClaims)

_Models: TypeAlias = type[Any] | tuple[type[Any], ...]
_HEADER_ALONE = "The token that Cloudflare Access adds to a request."
_NOT_PASSED = cast("Any", None)


def marked_async(function: F) -> F:
    """Mark a plain function as async, so that FastAPI awaits its result."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)  # pragma: no cover - by version
    function._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine")  # type: ignore[attr-defined]  # noqa: B009, SLF001
    return function  # pragma: no cover - by version


def _by_name_only(function: F) -> F:
    """Hide the positional arguments of a function from FastAPI, which would read them from the query."""
    own = inspect.signature(function)
    named = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_POSITIONAL]
    function.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
    return function


def _check_claims(policy: Policy, authenticator: Authenticator[Any]) -> None:
    """Check that the models of users keep the claims that a policy reads."""
    for member in authenticator.members:
        check_claims_are_kept(policy, member.verifier.user_model, member.verifier.settings.group_claims)


def security_scheme(sources: tuple[TokenSource, ...]) -> APIKey:
    """Return the API-key scheme that OpenAPI shows for a dependency."""
    location, name, description = _SCHEMES[sources[0]]
    if sources == ("header",):
        description = _HEADER_ALONE
    return APIKey(**{"in": location}, name=name, description=description)  # type: ignore[arg-type]


class Dependency(SecurityBase, params.Depends, Generic[T_co]):
    """An object for `Depends(…)`. Where FastAPI resolves none, call it: `await access.user(connection=request)`."""

    scheme_name = "CloudflareAccess"

    useless_alone: str | None = None
    """Why it guards nothing in `dependencies=[…]`, where its result is lost, and what to write; None if it guards."""

    # Undo what the dataclass `Depends` generates: fields in equality and hash, and frozen attributes.
    __eq__ = object.__eq__  # pyright: ignore[reportAssignmentType] - it names its parameters
    __hash__ = object.__hash__
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __init__(
        self,
        authenticator: Authenticator[Any],
        *,
        name: str,
        models: _Models = CALLERS,
        policy: PolicyFunction | None = None,
    ) -> None:
        """Create a dependency that admits callers of these models for which the policy is true.

        Args:
            authenticator: Authenticates the request.
            name: The expression in the app's code, such as `access.user`.
            models: The model, or models, of the admitted callers.
            policy: Decides which of these callers are admitted; by default all.
        """
        self._authenticator = authenticator
        self._name, self._models = name, models
        self._policy = None if policy is None else as_policy(policy)
        if self._policy is not None and UserClaims in self.caller_models:
            _check_claims(self._policy, authenticator)
        self._policy_name = repr(self._policy)
        self.model = security_scheme(authenticator.token_sources)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = inspect.signature(cls.__init__)  # `inspect.signature(cls)` would find the marked one of a base
        own = own.replace(parameters=[*own.parameters.values()][1:])
        sentence = f"{cls.__name__} is a class: write Depends(access), where access = {cls.__name__}(…)"
        forbid_as_dependency(cls, sentence, signature=own)

    def __repr__(self) -> str:
        return self._name

    @property
    def expression(self) -> str:
        """The expression in the app's code, such as `access.user`."""
        return self._name

    @property
    def result_types(self) -> tuple[type[Any], ...]:
        """The classes of what this dependency returns, `NoneType` included."""
        user_models = self._authenticator.user_models
        return tuple(
            kind for model in self.caller_models for kind in (user_models if model is UserClaims else (model,))
        )

    @property
    def caller_models(self) -> tuple[type[Any], ...]:
        """The models of the callers that are admitted: `UserClaims`, `ServiceClaims` or both."""
        return self._models if isinstance(self._models, tuple) else (self._models,)

    @property
    def policy_name(self) -> str | None:
        """The name of the policy; None if every caller of these models is admitted."""
        return None if self._policy is None else self._policy_name

    def belongs_to(self, authenticator: Authenticator[Any]) -> bool:
        """Check whether this dependency uses that authenticator."""
        return self._authenticator is authenticator

    def depends_on(self, authenticator: Authenticator[Any]) -> bool:
        """Check whether this dependency uses that authenticator, alone or among others."""
        return authenticator in self._authenticator.members

    def for_authenticator(self, authenticator: Authenticator[Any]) -> Self:
        """Return the same dependency for another authenticator."""
        other = copy(self)
        other._authenticator = authenticator  # noqa: SLF001 - of this class
        return other

    @property
    def dependency(self) -> NoReturn:  # pyright: ignore[reportIncompatibleVariableOverride] - it must fail
        """Fail when FastAPI finds this object without `Depends(…)` around it.

        Raises:
            ConfigurationError: Always.
        """
        raise AbsentAttribute(f"{self._name} is not wrapped in Depends: write Depends({self._name})")

    @marked_async
    @_by_name_only
    def __call__(
        self,
        *misplaced: Never,
        connection: HTTPConnection = _NOT_PASSED,
        security_scopes: SecurityScopes = _NOT_PASSED,
    ) -> Coroutine[Any, Any, T_co]:
        """Return the caller of a request or of a WebSocket handshake; FastAPI calls it.

        The connection is passed by name, as FastAPI does: without `await`, `if access.user(request)` would be true for
        every client.

        Raises:
            ConfigurationError: It was called without a connection, or with one that is not passed by name.
            AccessHTTPException: The caller is refused (when awaited).
            AccessWebSocketException: The same, for a server that can only close a handshake.
        """
        if misplaced or not hasattr(connection, "scope"):
            raise ConfigurationError(self._wrong_call(*misplaced or (connection,)))
        return self._admit(connection, security_scopes)

    async def _admit(self, connection: HTTPConnection, security_scopes: SecurityScopes | None) -> T_co:
        outcome: Any = await self._authenticator.outcome(connection.scope)
        if not isinstance(outcome, self._models):
            raise self._authenticator.refuse(_why_not(outcome, connection), connection)
        if self._policy is not None:
            decision = self._authenticator.decision(self._policy, outcome, connection.scope)
            if decision is Decision.DENY:
                raise self._authenticator.refuse(self._refusal(decision), connection)
            if decision is Decision.UNKNOWN and (denied := await self._denied(outcome, connection)):
                raise self._authenticator.refuse(denied, connection)
            self._authenticator.add_check(self._denied, connection.scope)
        self._check_scopes(connection, security_scopes)
        return cast("T_co", outcome)

    async def _denied(self, caller: Any, connection: HTTPConnection) -> AccessError | None:
        """Return why the policy refuses a caller, or None."""
        decisions = await self._authenticator.decide((cast("Policy", self._policy),), caller, connection.scope)
        if isinstance(decisions, AccessError):
            return decisions
        return None if decisions[0] is Decision.ALLOW else self._refusal(decisions[0])

    def _refusal(self, decision: Decision) -> PolicyDenied:
        name = self._policy_name
        if decision is Decision.DENY:
            return PolicyDenied(f"the policy {name} refused the caller", policy=name)
        groups = [path for each in self._authenticator.members for path in each.verifier.settings.group_claims]
        claims = claims_read(cast("Policy", self._policy), split_paths(tuple(groups)))
        read = ", ".join(".".join(path) for path in claims)
        return PolicyDenied(f"the policy {name} needs a claim that is not known of the caller: {read}", policy=name)

    def _check_scopes(self, connection: HTTPConnection, security_scopes: SecurityScopes | None) -> None:
        """Refuse every caller if this dependency itself asks for scopes; scopes of other dependencies do not count."""
        if security_scopes is None or not security_scopes.scopes:
            return
        if mistake := misuse_of(connection.scope, Dependency):
            log(logger, logging.ERROR, "refused, since the route is wrongly declared: %s", mistake)
            raise self._authenticator.refuse(PolicyDenied("no Access token has scopes"), connection)

    def _wrong_call(self, given: object, *_: object) -> str:
        if given is None:
            return f"{self._name}() is not a dependency: write Depends({self._name}), without () after the name"
        if hasattr(given, "scope"):
            return (
                f"{self._name} was called directly, which admits every client if await is forgotten: in a route write "
                f"Depends({self._name}), elsewhere await {self._name}(connection=request)"
            )
        wrong = f"{self._name} was called with {type(given).__name__} instead of a request or WebSocket"
        if hasattr(given, "router"):
            return f"{wrong}: as the lifespan write lifespan=access.lifespan"
        return f"{wrong}: in a route write Depends({self._name})"


class OptionalDependency(Dependency[U | ServiceClaims | None], Generic[U]):
    """The dependency that returns None without a token, or if the only token is a rejected cookie."""

    useless_alone = (
        "guards nothing, since it admits clients without a token: write Depends(access), or receive the caller in a "
        "parameter"
    )

    @property
    def result_types(self) -> tuple[type[Any], ...]:
        """The classes of what this dependency returns: the claims, and `NoneType`."""
        return (*super().result_types, NoneType)

    @property
    def openapi_extra(self) -> dict[str, Any]:
        """The `openapi_extra=` of a route: OpenAPI then shows that anonymous callers are admitted too.

        FastAPI itself cannot mark a security scheme as optional.
        """
        return {"security": [{}]}

    async def _admit(
        self, connection: HTTPConnection, security_scopes: SecurityScopes | None
    ) -> U | ServiceClaims | None:
        outcome = await self._authenticator.outcome(connection.scope)
        if isinstance(outcome, AccessError) and self._authenticator.is_rejected_cookie(outcome, connection.scope):
            self._authenticator.ignore(outcome, connection)
            outcome = None
        if outcome is not None:
            return await super()._admit(connection, security_scopes)
        self._check_scopes(connection, security_scopes)
        return None


class IdentityDependency(Dependency[Identity]):
    """The dependency that returns the identity of a user, which get-identity has; a service is refused."""

    @property
    def result_types(self) -> tuple[type[Any], ...]:
        """The class of what this dependency returns."""
        return (Identity,)

    async def _admit(self, connection: HTTPConnection, security_scopes: SecurityScopes | None) -> Identity:
        user: Any = await super()._admit(connection, security_scopes)
        identity = await self._authenticator.identity(connection.scope, user)
        if isinstance(identity, AccessError):
            raise self._authenticator.refuse(identity, connection)
        return identity


class RolesDependency(Dependency[frozenset[str]]):
    """The dependency that returns the names of the roles that the caller has."""

    useless_alone = (
        "admits callers without a role too, and their names are lost: write Depends(access.require(policy)) with the "
        "policy of the role, or receive the roles in a parameter"
    )

    def __init__(self, authenticator: Authenticator[Any], roles: Roles) -> None:
        """Create a dependency for these roles."""
        super().__init__(authenticator, name="access.roles(…)")
        self._roles = roles
        for _, policy in roles:
            _check_claims(policy, authenticator)

    @property
    def result_types(self) -> tuple[type[Any], ...]:
        """The class of what this dependency returns."""
        return (frozenset,)

    async def _admit(self, connection: HTTPConnection, security_scopes: SecurityScopes | None) -> frozenset[str]:
        caller: Any = await super()._admit(connection, security_scopes)
        decisions = await self._authenticator.decide([policy for _, policy in self._roles], caller, connection.scope)
        if isinstance(decisions, AccessError):
            raise self._authenticator.refuse(decisions, connection)
        named = zip(self._roles, decisions, strict=True)
        return frozenset(name for (name, _), decision in named if decision is Decision.ALLOW)


def _why_not(outcome: Outcome[Any], connection: HTTPConnection) -> AccessError:
    if outcome is None:
        return MissingToken(f"there is no token{other_credentials(connection.scope['headers'])}")
    if isinstance(outcome, AccessError):
        return outcome
    if isinstance(outcome, UserClaims):
        return WrongCallerType("the route is for services, and the caller is a user")
    return WrongCallerType("the route is for users, and the caller is a service")
