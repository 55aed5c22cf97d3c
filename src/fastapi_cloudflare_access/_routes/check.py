"""Mistakes in route declarations that would admit everyone, or could never work."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from inspect import Parameter, isfunction, unwrap
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_parameterless_sub_dependant, get_typed_signature
from starlette.types import Scope

from fastapi_cloudflare_access._routes.tree import walk
from fastapi_cloudflare_access._verified_model import VerifiedModel
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.keys import KeySource

_INSTANCES = ("self", "cls")
"""Names of the parameter through which a method receives its object or its class."""
_PLAIN = (str, int, float, bool)

_checked: dict[tuple[int, int], tuple[object, object, int, str | None]] = {}
"""By the ids of a route and its app: both, so that no others get these ids, the size of the app, and the mistake."""


def misuses(app: object, ours: type[Any]) -> Iterator[str]:
    """Yield every mistake in the routes of an app and of the apps mounted in it.

    Args:
        app: The app.
        ours: The class of the dependencies of this package.
    """
    found: set[str] = set()
    seen: set[int] = set()
    for node in walk(app):
        for dependant in node.dependants[:1]:  # of an included route, the tree as it is served
            if id(dependant) not in seen:  # an app may be mounted twice
                seen.add(id(dependant))
                mistakes = [*_mistakes(dependant, ours)]
                found.update(mistakes)
                yield from (f"{node.path}: {sentence}" for sentence in mistakes)
    for depends in getattr(getattr(app, "router", None), "dependencies", ()):  # a frontend is not a route
        whole = Dependant(dependencies=[get_parameterless_sub_dependant(depends=depends, path="")])
        yield from (f"the whole app: {sentence}" for sentence in _mistakes(whole, ours) if sentence not in found)


def misuse_of(scope: Scope, ours: type[Any]) -> str | None:
    """Return the mistake in the route of this request, or None; an unknown route is a mistake."""
    route, app = scope.get("route"), scope.get("app")
    if (dependant := getattr(route, "dependant", None)) is None:
        return "it is not known to which route a dependency of access belongs: declare it on a route or a router"
    size = len(getattr(app, "routes", ()))
    known = id(route), id(app)  # a router may be included in several apps
    *_, known_size, sentence = _checked.get(known, (None, None, None, None))
    if known_size != size:
        included = [tree for node in walk(app) if node.declared is route for tree in node.dependants]
        sentence = next((sentence for tree in [dependant, *included] for sentence in _mistakes(tree, ours)), None)
        _checked[known] = route, app, size, sentence
    return sentence


def _mistakes(dependant: Dependant, ours: type[Any]) -> Iterator[str]:
    yield from _claims_from_requests(dependant)
    yield from _methods_as_functions(dependant)
    for sub in dependant.dependencies:
        yield from _mistakes_of_call(sub.call, sub.own_oauth_scopes, ours)
        if isinstance(call := _unwrapped(sub.call), ours):
            yield from _mistakes_of_result(call, sub.name, dependant.call)
        yield from _mistakes(sub, ours)


def _mistakes_of_result(call: Any, parameter: str | None, function: Any) -> Iterator[str]:
    """Yield why the result of a dependency is lost, or is not what the parameter that receives it is annotated with."""
    if parameter is None:
        if call.useless_alone is not None:
            yield f"{call.expression} in dependencies=[…] {call.useless_alone}"
        return
    annotated = _classes(get_typed_signature(function).parameters[parameter].annotation)
    missing = [kind for kind in call.result_types if not any(issubclass(kind, one) for one in annotated)]
    if missing and all(issubclass(one, VerifiedModel | NoneType) for one in annotated):
        returns = "returns" if len(missing) == len(call.result_types) else "also returns"
        yield (
            f"the parameter {parameter} is annotated with {_shown(annotated)}, and {call.expression} {returns} "
            f"{_shown(missing)}: write {_mended(parameter, annotated, call)}"
        )


def _mended(parameter: str, annotated: Sequence[type[Any]], call: Any) -> str:
    """Return what to write for a parameter that is annotated with less than it receives."""
    models = [kind for kind in annotated if issubclass(kind, UserClaims) and kind is not UserClaims]
    if models and UserClaims in call.result_types and not any(model in call.result_types for model in models):
        return f"CloudflareAccess(user_model={models[0].__name__})"
    written = f"{parameter}: Annotated[{_shown(call.result_types)}, Depends({call.expression})]"
    other = _dependency_for(annotated)
    is_other = other != call.expression and not (NoneType in annotated and NoneType in call.result_types)
    return f"{written}, or use {other}" if is_other else written


def _classes(annotation: Any) -> tuple[type[Any], ...]:
    """Return the classes of an annotation; `object`, which covers everything, for what is not a class."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(kind if isinstance(kind, type) and kind is not Parameter.empty else object for kind in kinds)


def _shown(kinds: Iterable[type[Any]]) -> str:
    return " | ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)


def _dependency_for(kinds: Iterable[type[Any]]) -> str:
    """Return the dependency that returns these classes."""
    kinds = tuple(kinds)
    if dependency := next((named for kind in kinds if (named := getattr(kind, "dependency", None))), None):
        return str(dependency)
    services = [issubclass(kind, ServiceClaims) for kind in kinds if kind is not NoneType]
    return "access.service" if all(services) else "access" if any(services) else "access.user"


def _unwrapped(call: Any) -> Any:
    while isinstance(call, partial):
        call = call.func
    return call


def _mistakes_of_call(call: Any, scopes: Sequence[str] | None, ours: type[Any]) -> Iterator[str]:
    call = _unwrapped(call)
    if isinstance(call, ours) and scopes:
        yield (
            f"Security({call.expression}, scopes={[*scopes]!r}) asks for scopes, and no Access token has any: "
            "write Depends(access.require(policy))"
        )
    owner = getattr(call, "__self__", None)
    if isinstance(owner, (ours, KeySource)) or (isinstance(owner, type) and issubclass(owner, VerifiedModel)):
        yield f"Depends({_name_of(owner)}.{call.__name__}) admits every client: write Depends(access)"


def _name_of(owner: object) -> str:
    if isinstance(owner, type):
        return owner.__name__
    return "access.keys" if isinstance(owner, KeySource) else "access"


def _claims_from_requests(dependant: Dependant) -> Iterator[str]:
    for field in _fields_from_requests(dependant):
        if isinstance(field.field_info.annotation, str | ForwardRef):
            yield (
                f"the annotation of the parameter {field.name} cannot be resolved, so a Depends in it is ignored: "
                "define what it names at the top of the module"
            )
        if models := sorted(_verified_models(field.field_info.annotation), key=_name_of, reverse=True):
            yield (
                f"the parameter {field.name} takes {_shown(models)} from the request, where claims never come from: "
                f"write {field.name}: Annotated[{_shown(models)}, Depends({_dependency_for(models)})]"
            )


def _methods_as_functions(dependant: Dependant) -> Iterator[str]:
    """Yield the methods that were registered as functions: FastAPI takes their `self` from the request."""
    for field in _fields_from_requests(dependant):
        if field.name in _INSTANCES and _is_instance_of_method(field.name, dependant.call):
            yield (
                f"{_qualified_name(dependant.call)} is a method, and takes {field.name} from the request: write a "
                "function, and take the caller in a parameter: user: Annotated[UserClaims, Depends(access.user)]"
            )


def _fields_from_requests(dependant: Dependant) -> list[Any]:
    in_headers = [*dependant.path_params, *dependant.query_params, *dependant.header_params, *dependant.cookie_params]
    return [*in_headers, *dependant.body_params]


def _is_instance_of_method(name: str, function: Any) -> bool:
    """Check whether a parameter is the first one of a method that has no object yet.

    An annotated one of a plain function, or text and numbers, may be meant to come from the request.
    """
    while isinstance(function, partial):
        if function.args:
            return False
        function = function.func
    if getattr(function, "__self__", None) is not None or not isfunction(unwrap(function)):
        return False
    first = next(iter(get_typed_signature(function).parameters.values()))
    if first.name != name:
        return False
    if "." in _qualified_name(function):
        return first.annotation not in _PLAIN
    return first.annotation is Parameter.empty and first.default is Parameter.empty


def _qualified_name(function: Any) -> str:
    function = _unwrapped(function)
    return str(getattr(function, "__qualname__", type(function).__qualname__)).rpartition("<locals>.")[2]


def _verified_models(annotation: Any) -> set[type[Any]]:
    if isinstance(annotation, type) and issubclass(annotation, VerifiedModel):
        return {annotation}
    return {model for argument in get_args(annotation) for model in _verified_models(argument)}
