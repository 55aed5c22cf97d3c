"""Asking a policy of the app's own: only a plain True lets a caller in, and what it raises goes no further."""

import logging
from collections.abc import Callable
from inspect import Parameter, iscoroutinefunction, signature
from traceback import extract_tb
from typing import Any

from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError

logger = logging.getLogger("fastapi_cloudflare_access")

Policy = Callable[[Any], bool]
"""Tells whether a caller may: takes the claims, gives True or False."""


def check_policy(policy: Any) -> None:
    """Stop at construction what could never be asked.

    Raises:
        ConfigurationError: It is no plain function, or it cannot be compared with others.
    """
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
    except ValueError:  # some functions written in C do not tell their parameters
        return True
    first = parameters[0]
    return (first.default is first.empty) and _admits_claims(first.annotation)


def _admits_claims(annotation: Any) -> bool:
    if not isinstance(annotation, type) or annotation is Parameter.empty:
        return True
    try:
        return any(issubclass(kind, annotation) or issubclass(annotation, kind) for kind in (UserClaims, ServiceClaims))
    except TypeError:  # a protocol
        return True


def is_async(function: Any) -> bool:
    """Tell whether calling this gives something to await."""
    call = getattr(function, "__call__", None)  # noqa: B004 - instances that can be called
    return iscoroutinefunction(function) or iscoroutinefunction(call) or hasattr(call, "_is_coroutine")


def allows(policy: Policy, caller: Any) -> bool:
    """Ask the policy about a caller; the log names no claim, so not the message of what it raises either."""
    try:
        decision: Any = policy(caller)
    except Exception as failure:  # noqa: BLE001 - whatever it raises, it is the policy's own
        place = extract_tb(failure.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        log(logger, logging.ERROR, "a policy failed with %s at %s: refused", type(failure).__name__, where)
        return False
    if not isinstance(decision, bool):
        kind = type(decision).__name__
        log(logger, logging.ERROR, "a policy gave %s instead of True or False: refused", kind)
    return decision is True
