"""Callables that must not be FastAPI dependencies: defining such a route fails with a message that says what to write.

FastAPI accepts any callable in `Depends(…)` and reads its parameters from the request. If the call raises nothing,
every client is admitted.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any, NoReturn, TypeVar

from fastapi_cloudflare_access.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

_NAME = "not_a_dependency"


class AbsentAttribute(ConfigurationError, AttributeError):
    """Also an AttributeError, so that `hasattr` and mocks can look at an object; its name is the documented one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ConfigurationError, self.args


AbsentAttribute.__name__ = AbsentAttribute.__qualname__ = ConfigurationError.__name__
AbsentAttribute.__module__ = ConfigurationError.__module__


@dataclass(frozen=True, slots=True)
class NotADependency:
    """Metadata for `Annotated` that makes FastAPI fail with this sentence when it builds the parameter.

    Attributes:
        sentence: What is wrong, and what to write.
    """

    sentence: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        """Fail when FastAPI builds the parameter, which is when a route is defined."""
        raise ConfigurationError(self.sentence)


def never_a_dependency(sentence: str) -> Callable[[F], F]:
    """Make `Depends(…)` around a method without parameters an error when a route is defined."""

    def forbid(function: F) -> F:
        function.__signature__ = _marked(inspect.signature(function), sentence)  # type: ignore[attr-defined]
        return function

    return forbid


def forbid_as_dependency(kind: type[Any], sentence: str, *, signature: inspect.Signature | None = None) -> None:
    """Make `Depends(kind)` an error when a route is defined, by one more parameter in the signature of the class.

    Args:
        kind: The class.
        sentence: What is wrong, and what to write.
        signature: The signature of its constructor; by default the one that `inspect` finds.
    """
    kind.__signature__ = _ClassSignature(_marked(signature or _signature_of(kind), sentence))


def _signature_of(kind: type[Any]) -> inspect.Signature:
    """Return the signature of a class itself, where `inspect` would find the one that was set on its base."""
    nearest = next(base for base in kind.__mro__ if {"__signature__", "__init__"} & vars(base).keys())
    if "__signature__" in vars(nearest) or not hasattr(kind, "__signature__"):
        return inspect.signature(kind)
    own = inspect.signature(kind.__init__)
    return own.replace(parameters=[*own.parameters.values()][1:])


def _marked(signature: inspect.Signature, sentence: str) -> inspect.Signature:
    marker = Parameter(
        _NAME, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[None, NotADependency(sentence)]
    )
    others = [parameter for name, parameter in signature.parameters.items() if name != _NAME]
    positional = [parameter for parameter in others if parameter.kind < Parameter.KEYWORD_ONLY]
    rest = [parameter for parameter in others if parameter.kind >= Parameter.KEYWORD_ONLY]
    return signature.replace(parameters=[*positional, marker, *rest])


class _ClassSignature:
    """The signature of a class. Its instances do not have it, since some of them can be called."""

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature

    def __get__(self, instance: object, owner: type[Any]) -> inspect.Signature:
        if instance is not None:
            raise AttributeError
        return self._signature
