"""Mistakes in route declarations that would admit everyone, or could never work."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ForwardRef, get_args

from fastapi import routing
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from starlette.routing import BaseRoute
from starlette.types import Scope

from fastapi_cloudflare_access._verified_model import VerifiedModel
from fastapi_cloudflare_access.keys import KeySource

_checked: dict[int, tuple[object, int, str | None]] = {}
"""By the id of a route that asks for scopes: the route, the number of routes of its app, and the mistake found."""


def misuses(app: object, ours: type[Any]) -> Iterator[str]:
    """Yield every mistake in the routes of an app and of the apps mounted in it.

    Args:
        app: The app.
        ours: The class of the dependencies of this package.
    """
    found: set[str] = set()
    for context in _every_context(app):
        if dependant := getattr(context, "dependant", None):
            for sentence in _mistakes(dependant, ours):
                found.add(sentence)
                yield f"{context.path}: {sentence}"
    for depends in getattr(getattr(app, "router", None), "dependencies", ()):  # a frontend is not a route
        whole = Dependant(dependencies=[get_parameterless_sub_dependant(depends=depends, path="")])
        yield from (f"the whole app: {sentence}" for sentence in _mistakes(whole, ours) if sentence not in found)


def misuse_of(scope: Scope, ours: type[Any]) -> str | None:
    """Return the mistake in the route of this request, or None; an unknown route is a mistake."""
    route, app = scope.get("route"), scope.get("app")
    if (dependant := getattr(route, "dependant", None)) is None:
        return "it is not known to which route a dependency of access belongs: declare it on a route or a router"
    size = len(getattr(app, "routes", ()))
    checked, known_size, sentence = _checked.get(id(route), (None, 0, None))
    if checked is not route or known_size != size:
        included = [context for context in _every_context(app) if getattr(context, "original_route", None) is route]
        dependants = [dependant, *(context.dependant for context in included)]
        sentence = next((sentence for each in dependants for sentence in _mistakes(each, ours)), None)
        _checked[id(route)] = route, size, sentence
    return sentence


def _every_context(app: object, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield the routes of an app, of the apps mounted in it, and of apps inside middleware."""
    seen = set() if seen is None else seen
    if app is None or id(app) in seen:
        return
    seen.add(id(app))
    for context in _contexts(app):
        yield context
        yield from _every_context(getattr(getattr(context, "original_route", context), "app", None), seen)
    if not hasattr(app, "routes"):
        yield from _every_context(getattr(app, "app", None), seen)


def _contexts(app: object) -> Iterator[Any]:
    """Return the routes, each with the dependencies that the app and its routers add."""
    routes: list[BaseRoute] = getattr(app, "routes", [])
    every = getattr(routing, "iter_route_contexts", None)  # FastAPI before 0.138 copies included routes instead
    return iter(every(routes) if every else routes)


def _mistakes(dependant: Dependant, ours: type[Any]) -> Iterator[str]:
    yield from _claims_from_requests(dependant)
    for sub in dependant.dependencies:
        yield from _mistakes_of_call(sub.call, sub.own_oauth_scopes, ours)
        yield from _mistakes(sub, ours)


def _mistakes_of_call(call: Any, scopes: Sequence[str] | None, ours: type[Any]) -> Iterator[str]:
    while isinstance(call, partial):
        call = call.func
    if isinstance(call, ours) and scopes:
        yield (
            f"Security({call!r}, scopes={[*scopes]!r}) asks for scopes, and no Access token has any: "
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
    in_headers = [*dependant.path_params, *dependant.query_params, *dependant.header_params, *dependant.cookie_params]
    for field in [*in_headers, *dependant.body_params]:
        if isinstance(field.field_info.annotation, str | ForwardRef):
            yield (
                f"the annotation of the parameter {field.name} cannot be resolved, so a Depends in it is ignored: "
                "define what it names at the top of the module"
            )
        if models := " | ".join(sorted(_verified_models(field.field_info.annotation), reverse=True)):
            yield (
                f"the parameter {field.name} takes {models} from the request, where claims never come from: write "
                f"{field.name}: Annotated[{models}, Depends(access.user)] or another dependency of access"
            )


def _verified_models(annotation: Any) -> set[str]:
    if isinstance(annotation, type) and issubclass(annotation, VerifiedModel):
        return {annotation.__name__}
    return {name for argument in get_args(annotation) for name in _verified_models(argument)}
