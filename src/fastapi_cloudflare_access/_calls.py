"""Calls with wrong arguments: a sentence that says what to write, instead of Python's `TypeError`."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

from fastapi_cloudflare_access.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])


def or_write(sentence: str) -> Callable[[F], F]:
    """Make a call whose arguments do not fit an error that says what to write."""

    def checking(function: F) -> F:
        own = signature(function)

        @wraps(function)
        def checked(*values: Any, **named: Any) -> Any:
            try:
                own.bind(*values, **named)
            except TypeError:
                raise ConfigurationError(sentence) from None
            return function(*values, **named)

        return cast("F", checked)

    return checking
