"""What FastAPI must never call or fill by itself: an error when a route is defined, which says what to write.

FastAPI takes any callable in `Depends(…)`, reads its parameters from the request, and lets everybody in whom the call
does not stop.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any, NoReturn, TypeVar

from fastapi_cloudflare_access.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

_NAME = "not_a_dependency"


@dataclass(frozen=True, slots=True)
class NotADependency:
    """Metadata of a parameter in `Annotated`: FastAPI cannot build it, and fails with this sentence.

    Attributes:
        sentence: What is wrong and what to write.
    """

    sentence: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        """Fail where FastAPI builds the parameter: while a route is defined."""
        raise ConfigurationError(self.sentence)


def never_a_dependency(sentence: str) -> Callable[[F], F]:
    """Make `Depends(…)` around a method without parameters an error when a route is defined."""

    def forbid(function: F) -> F:
        function.__signature__ = _marked(inspect.signature(function), sentence)  # type: ignore[attr-defined]
        return function

    return forbid


def forbid_as_dependency(kind: type[Any], sentence: str) -> None:
    """Make `Depends(kind)` an error when a route is defined; its signature gets one more parameter for that."""
    kind.__signature__ = _ClassSignature(_marked(inspect.signature(kind), sentence))


def _marked(signature: inspect.Signature, sentence: str) -> inspect.Signature:
    marker = Parameter(
        _NAME, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[None, NotADependency(sentence)]
    )
    others = [parameter for name, parameter in signature.parameters.items() if name != _NAME]
    positional = [parameter for parameter in others if parameter.kind < Parameter.KEYWORD_ONLY]
    rest = [parameter for parameter in others if parameter.kind >= Parameter.KEYWORD_ONLY]
    return signature.replace(parameters=[*positional, marker, *rest])


class _ClassSignature:
    """The signature of a class, which its instances do not have, since some of them can be called."""

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature

    def __get__(self, instance: object, owner: type[Any]) -> inspect.Signature:
        if instance is not None:
            raise AttributeError
        return self._signature
