"""Evaluation of the tree of dependencies, and of the guards in front of a route."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import NoneType
from typing import Any, NamedTuple

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant

from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._routes.tree import Level, Node, behind
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.testing._audit.entries import Caller, Note
from fastapi_cloudflare_access.testing._audit.notes import notes_on
from fastapi_cloudflare_access.testing._audit.paths import (
    host_of,
    host_of_level,
    is_tree,
    levels_of,
    mounted_at,
    prefix_of,
    sample_prefix,
    shown_path,
)

_MODELS: dict[Caller, type[Any]] = {"users": UserClaims, "services": ServiceClaims}
GUARD = "AccessGuard"

Authenticators = frozenset[Authenticator[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """A guard in front of an app.

    Attributes:
        dependency: The dependency that it asks.
        exempt: The paths that need no token, as its app sees them.
        prefix: The path under which its app is mounted.
        sample_prefix: The same with values for the parameters; None if none are known.
        host: A host name for which a request reaches it.
        unserved: The exempt paths that its app does not serve.
        ends_streams: Whether WebSockets behind it end with the token of their caller.
    """

    dependency: Dependency[Any]
    exempt: frozenset[str]
    prefix: str
    sample_prefix: str | None
    host: str
    unserved: tuple[str, ...]
    ends_streams: bool

    def paths(self) -> set[str]:
        """Return the exempt paths in the whole app."""
        return {self.prefix + path for path in self.exempt}


class Flaw(NamedTuple):
    """A dependency or guard that does not count, and what to do about it."""

    why: str
    advice: str


@dataclass(slots=True)
class Admission:
    """The callers that dependencies and guards admit.

    Attributes:
        gates: The dependencies of which each must admit the caller.
        flaws: The others, which do not count.
        is_guarded: Whether one of the gates is a guard.
        dependencies: The gates among the dependencies of the route, each with what FastAPI knows of it.
        notes: What the route does not hold, if it is protected.
    """

    gates: list[Dependency[Any]] = field(default_factory=list[Dependency[Any]])
    flaws: list[Flaw] = field(default_factory=list[Flaw])
    is_guarded: bool = False
    dependencies: list[tuple[Dependency[Any], Dependant]] = field(
        default_factory=list[tuple[Dependency[Any], Dependant]]
    )
    notes: tuple[Note, ...] = ()

    @property
    def kinds(self) -> list[Caller]:
        """The kinds of callers that every gate admits."""
        return [name for name, model in _MODELS.items() if all(model in gate.caller_models for gate in self.gates)]

    @property
    def policies(self) -> list[str]:
        """The names of the policies that must be true."""
        return [*dict.fromkeys(gate.policy_name for gate in self.gates if gate.policy_name is not None)]

    @property
    def by(self) -> list[str]:
        """The expressions of the gates."""
        expressions = [gate.expression for gate, _ in self.dependencies]
        return [*dict.fromkeys([*([GUARD] if self.is_guarded else []), *expressions])]


class Evaluator:
    """Evaluates which callers the dependencies of routes, and the guards in front of them, admit."""

    def __init__(self, authenticators: Authenticators | None) -> None:
        """Count the dependencies and guards of these authenticators; None for all."""
        self._authenticators = authenticators
        self._guards: dict[Level, list[Guard]] = {}

    def admission(self, node: Node) -> Admission:
        """Return which callers a route admits."""
        admission = Admission()
        for guard in self.guards_before(node):
            self._count_guard(guard, node, admission)
        overrides = overrides_of(node)
        for tree in node.dependants[:1]:
            for gate, sub in effective(tree, overrides, admission.flaws):
                self._count_dependency(gate, sub, admission)
        if is_websocket(node):
            is_guarded = any(guard.ends_streams for guard in self.guards_before(node))
            admission.notes = (*notes_on(node, is_guarded=is_guarded, admits_users="users" in admission.kinds),)
        return admission

    def guards_before(self, node: Node) -> Iterator[Guard]:
        """Yield the guards that a request passes before it reaches a route, the outermost first."""
        for level in levels_of(node):
            if level not in self._guards:
                self._guards[level] = [*_guards_of(level)]
            yield from self._guards[level]
        if node.group is None and not node.dependants:
            yield from _guards_around(node)

    def _count_guard(self, guard: Guard, node: Node, admission: Admission) -> None:
        if not self._counts(guard.dependency):
            admission.flaws.append(_of_another(GUARD))
        elif not is_websocket(node) and shown_path(node) in guard.paths():
            admission.flaws.append(Flaw(f"exempt from {GUARD}", "remove it from exempt="))
        else:
            admission.gates.append(guard.dependency)
            admission.is_guarded = True

    def _count_dependency(self, gate: Dependency[Any], sub: Dependant, admission: Admission) -> None:
        if not self._counts(gate):
            admission.flaws.append(_of_another(gate.expression))
        elif NoneType in gate.result_types:
            admission.flaws.append(
                Flaw(f"{gate.expression} admits clients without a token", "write Depends(access.user)")
            )
        else:
            admission.gates.append(gate)
            admission.dependencies.append((gate, sub))

    def _counts(self, dependency: Dependency[Any]) -> bool:
        return self._authenticators is None or any(dependency.belongs_to(one) for one in self._authenticators)


def _of_another(expression: str) -> Flaw:
    return Flaw(f"{expression} of another CloudflareAccess object", "use the object that is audited, or audit both")


def ours(call: Any) -> Dependency[Any] | None:
    """Return the dependency of this package that FastAPI calls, or None."""
    while isinstance(call, partial) and not call.args and not call.keywords:
        call = call.func
    return call if isinstance(call, Dependency) else None  # pyright: ignore[reportUnknownVariableType] - mypy sees Any


def effective(
    tree: Dependant, overrides: dict[Any, Any], flaws: list[Flaw], calls: tuple[Any, ...] = ()
) -> Iterator[tuple[Dependency[Any], Dependant]]:
    """Yield the dependencies of this package in a tree, in the order of their calls, with overrides applied."""
    for given in tree.dependencies:
        call: Any = overrides.get(given.call, given.call)
        sub = given
        if call is not given.call:
            sub = get_dependant(path=given.path or "", call=call, name=given.name)
            if (replaced := ours(given.call)) and ours(call) is None:
                flaws.append(Flaw(f"{replaced.expression} is overridden", "clear app.dependency_overrides"))
        if gate := ours(call):
            yield gate, sub
        elif not any(call is one for one in calls):
            yield from effective(sub, overrides, flaws, (*calls, call))


def overrides_of(node: Node) -> dict[Any, Any]:
    """Return the overrides of dependencies that FastAPI applies to a route."""
    return getattr(provider_of(node), "dependency_overrides", None) or {}


def provider_of(node: Node) -> Any:
    """Return the object whose `dependency_overrides` FastAPI applies to a route."""
    owner = node.route if node.group is None else node.group
    of_router = getattr(node.level.router, "dependency_overrides_provider", None)
    return getattr(owner, "dependency_overrides_provider", of_router)


def _guards_of(level: Level) -> Iterator[Guard]:
    """Yield the guards around an app, and those that it adds itself."""
    place = prefix_of(level), sample_prefix(level), host_of_level(level)
    yield from _guards(level.wrappers, place)
    for middleware in getattr(level.app, "user_middleware", ()):
        if _is_guard_class(middleware.cls):
            yield from _guards([middleware.cls(level.router, *middleware.args, **middleware.kwargs)], place)
    yield from _guards(behind(getattr(level.router, "middleware_stack", None)), place)


def _guards_around(node: Node) -> Iterator[Guard]:
    """Yield the guards around one route, or around an app that it mounts and whose routes are not known."""
    prefix, outer, own = shown_path(node).removesuffix("/*"), sample_prefix(node.level), mounted_at(node)
    if not is_tree(node):
        prefix = prefix_of(node.level)
    sample = None if outer is None or own is None else outer + own
    yield from _guards(behind(getattr(node.route, "app", None)), (prefix, sample, host_of(node)))


def _guards(objects: Sequence[Any], place: tuple[str, str | None, str]) -> Iterator[Guard]:
    for one in objects:
        if _is_guard_class(type(one)):
            yield Guard(one.dependency, one.exempt, *place, tuple(one.unserved()), one.ends_streams)


def _is_guard_class(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, AccessGuard)


def is_websocket(node: Node) -> bool:
    """Check whether a route serves WebSockets alone."""
    return not hasattr(node.route, "methods") and hasattr(node.route, "endpoint")
