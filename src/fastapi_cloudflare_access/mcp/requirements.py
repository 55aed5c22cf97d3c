"""Policies for single tools, resources and prompts."""

import gc
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from starlette.concurrency import run_in_threadpool

from fastapi_cloudflare_access._policy import check_policy, unasked_model
from fastapi_cloudflare_access._requests.responses import AccessHTTPException
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.mcp.calls import current_call, get_call
from fastapi_cloudflare_access.mcp.sdk import FORBIDDEN, CallRefused
from fastapi_cloudflare_access.policies.logic import as_policy

P = ParamSpec("P")
R = TypeVar("R")

_KINDS = (UserClaims, ServiceClaims)


class AuthContext(Protocol):
    """The argument of an auth check of FastMCP."""

    token: Any
    component: Any


def requires(policy: Callable[[Any], bool]) -> "Requirement":
    """Return a decorator that refuses a call by a caller for which the policy is not true.

    Write it below the decorator of the SDK: it must wrap the function that the SDK registers. With FastMCP it can be
    the `auth=` of a tool instead, which is then not listed for other callers.

    A policy whose parameter is annotated with `UserClaims` or `ServiceClaims` refuses callers of the other kind.

    Raises:
        ConfigurationError: The policy cannot be called with the claims, or is not hashable.

    Examples:
        ```python
        from fastmcp import FastMCP

        from fastapi_cloudflare_access import CloudflareAccess
        from fastapi_cloudflare_access.mcp import CloudflareAccessProvider, requires
        from fastapi_cloudflare_access.policies import Group

        mcp = FastMCP("notes", auth=CloudflareAccessProvider(CloudflareAccess()))


        @mcp.tool(auth=requires(Group("admins")))
        def delete_note(number: int) -> str:
            return f"deleted {number}"
        ```
    """
    check_policy(policy)
    return Requirement(policy)


class Requirement:
    """The result of `requires(policy)`: a decorator, and an auth check of FastMCP."""

    __slots__ = ("_policy", "_refused")

    def __init__(self, policy: Callable[[Any], bool]) -> None:
        """Store a policy that was checked."""
        self._policy = policy
        self._refused = unasked_model(policy, _KINDS)

    def __repr__(self) -> str:
        return f"requires({as_policy(self._policy)!r})"

    @overload
    def __call__(self, target: AuthContext) -> Awaitable[bool]: ...
    @overload
    def __call__(self, target: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, target: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __call__(self, target: Any) -> Any:
        """Return the guarded function; for FastMCP's `AuthContext`, check whether the current caller is admitted.

        Raises:
            ConfigurationError: The target is not a plain function, or an SDK has registered it already.
        """
        if hasattr(target, "component") and hasattr(target, "token"):
            return self._admits()
        if not inspect.isroutine(target) or isinstance(target, partial):  # which is a routine from Python 3.14 on
            raise ConfigurationError(
                f"{self!r} decorates a function, not {type(target).__name__}: write it below the decorator of the SDK"
            )
        if _is_registered(target):
            raise ConfigurationError(
                f"{self!r} guards nothing above the decorator that registers {target.__name__}: write it below that one"
            )
        return self._guarded(target)

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        is_async = inspect.iscoroutinefunction(function)

        @wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            await self._admit()
            if is_async:
                return await function(*args, **kwargs)
            return await run_in_threadpool(function, *args, **kwargs)

        return guarded

    async def _admit(self) -> None:
        """Refuse the current caller, with the log record and the event of a request, unless the policy is true.

        Raises:
            CallRefused: The policy refuses the caller, or cannot be decided now.
            ConfigurationError: There is no caller.
        """
        call = get_call()
        access = call.access
        require = {None: access.require, ServiceClaims: access.require_user, UserClaims: access.require_service}
        try:
            await require[self._refused](self._policy)(connection=call.connection)
        except AccessHTTPException as refusal:
            raise CallRefused(FORBIDDEN, str(refusal.detail)) from None

    async def _admits(self) -> bool:
        """Return whether the policy admits the current caller, without a log record: FastMCP asks for every list."""
        call = None if current_call.get() is None else get_call()
        if call is None or (self._refused is not None and isinstance(call.caller, self._refused)):
            return False
        try:
            return bool(await call.access.roles({"caller": self._policy})(connection=call.connection))
        except AccessHTTPException:  # the policy needs an identity that cannot be asked
            return False


def _is_registered(function: Any) -> bool:
    """Check whether an SDK has registered a function, so that a decorator would come too late.

    FastMCP marks such a function. The official SDK does not, so this looks for its registered tools, and for the
    validating wrappers that it puts around resources and prompts.
    """
    if hasattr(function, "__fastmcp__"):
        return True
    return any(_holds(each, function) for each in gc.get_referrers(function))


def _holds(referrer: Any, function: Any) -> bool:
    attributes: dict[Any, Any] = referrer if type(referrer) is dict else {}  # pyright: ignore[reportUnknownVariableType]
    if attributes.get("raw_function") is function:
        return True
    return attributes.get("fn") is function and {"name", "description"} <= attributes.keys()
