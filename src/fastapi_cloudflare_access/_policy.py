"""Checking and calling the app's policies: only `True` admits a caller; an exception is logged and refuses."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from inspect import Parameter, iscoroutinefunction, signature
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from fastapi_cloudflare_access._logging import log, raised_at
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError

logger = logging.getLogger("fastapi_cloudflare_access")

MAX_NAME = 200
"""Number of characters that the name of a policy has at most."""

Policy = Callable[[Any], bool]
"""A function of the claims that returns True to admit the caller, or False."""


def check_policy(policy: Any) -> None:
    """Check at construction that a policy can be called with claims, and compared with others.

    Raises:
        ConfigurationError: The policy is async, takes other arguments than the claims, or is not hashable.
    """
    if isinstance(policy, str):
        raise ConfigurationError(f"a policy is not text: write {'Email' if '@' in policy else 'Group'}({policy!r})")
    if not callable(policy) or is_async(policy):
        raise ConfigurationError("a policy must be a plain function: it takes the claims and returns True or False")
    try:
        hash(policy)
    except TypeError:
        raise ConfigurationError("a policy must be hashable, since equal policies are one dependency") from None
    if not _takes_claims(policy):
        raise ConfigurationError("a policy must be a function of one argument: it takes the claims, and nothing else")


def _takes_claims(function: Any) -> bool:
    """Check that a function can be called with claims, and is not a handler that `require` decorates by mistake."""
    try:
        parameters = [*signature(function).bind(None).signature.parameters.values()]
    except TypeError:
        return False
    except ValueError:  # some functions written in C have no signature
        return True
    first = parameters[0]
    return (first.default is first.empty) and _admits_claims(first.annotation)


def _admits_claims(annotation: Any) -> bool:
    if not isinstance(annotation, type) or annotation in (Parameter.empty, Any):
        return True
    try:
        return any(issubclass(kind, annotation) or issubclass(annotation, kind) for kind in (UserClaims, ServiceClaims))
    except TypeError:  # a protocol
        return True


def unasked_model(policy: Any, models: Iterable[type[Any]]) -> type[Any] | None:
    """Return a model that the annotation of a policy's parameter excludes, or None."""
    try:
        annotation = next(iter(signature(policy).parameters.values())).annotation
    except (TypeError, ValueError, StopIteration):
        return None
    if not isinstance(annotation, type) or not issubclass(annotation, (UserClaims, ServiceClaims)):
        return None
    return next((model for model in models if not issubclass(annotation, model)), None)


def is_async(function: Any) -> bool:
    """Check whether a call of this object returns an awaitable."""
    call = getattr(function, "__call__", None)  # noqa: B004 - of a callable instance
    return iscoroutinefunction(function) or iscoroutinefunction(call) or hasattr(call, "_is_coroutine")


def policy_name(policy: Any) -> str:
    """Return how log records and events name a policy: by the place where its function or its class is defined.

    The `repr` is not shown, since it can contain addresses and secrets; policies of this package have one that is safe.
    """
    while isinstance(policy, partial):
        policy = policy.func
    if isinstance(policy, FunctionType) and policy.__name__ == "<lambda>":
        return f"lambda at {PurePath(policy.__code__.co_filename).name}:{policy.__code__.co_firstlineno}"
    named = policy if isinstance(policy, FunctionType | MethodType | BuiltinFunctionType | type) else type(policy)
    name = f"{named.__module__}.{named.__qualname__}"
    return "".join(character if character.isprintable() else "?" for character in name[:MAX_NAME])


def ask(policy: Policy, caller: Any) -> bool | None:
    """Return what the policy returns for a caller; None if it fails, or returns neither True nor False.

    The log shows no claim, so it does not show the message of an exception either.
    """
    try:
        decision: Any = policy(caller)
    except Exception as failure:  # noqa: BLE001 - a policy may raise anything
        kind, place = type(failure).__name__, raised_at(failure)
        log(logger, logging.ERROR, "cf-access asked a policy that failed with %s at %s: refused", kind, place)
        return None
    if not isinstance(decision, bool):
        kind = type(decision).__name__
        log(logger, logging.ERROR, "cf-access asked a policy that gave %s instead of True or False: refused", kind)
        return None
    return decision
