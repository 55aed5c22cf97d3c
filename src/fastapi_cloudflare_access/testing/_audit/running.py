"""The audit of a whole app."""

from collections.abc import Iterable
from dataclasses import replace
from threading import Lock
from typing import Any

from fastapi_cloudflare_access._logging import METHODS
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._routes.check import misuses
from fastapi_cloudflare_access._routes.tree import Level, Node, behind, has_routes, levels
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing._audit.asking import asking, run
from fastapi_cloudflare_access.testing._audit.entries import Audit, Entry
from fastapi_cloudflare_access.testing._audit.judging import Judge, is_leaf
from fastapi_cloudflare_access.testing._audit.tree import Admission, Evaluator, Guard
from fastapi_cloudflare_access.testing._replacing import authenticator_of, authenticators_of

_one_at_a_time = Lock()
"""An audit replaces the handlers of its app, and what the access objects do, which another would take for their own."""


def audit(app: Any, accesses: Iterable[Any] = ()) -> Audit:
    """Return which callers each route of an app admits.

    Args:
        app: The app; its lifespan is not started, and none of its handlers runs.
        accesses: The objects whose dependencies and guards count; by default all that the app uses.

    Raises:
        ConfigurationError: The routes of the app are not known.
    """
    if not callable(app) or not has_routes(behind(app)[-1]):
        raise ConfigurationError(f"the app must be a FastAPI or Starlette app, not {type(app).__name__}")
    with _one_at_a_time:
        return _audit(app, accesses)


def _audit(app: Any, accesses: Iterable[Any]) -> Audit:
    apps = [*levels(app)]
    authenticators = frozenset(
        one for access in accesses for one in [authenticator_of(access), *authenticators_of(access)]
    )
    evaluator = Evaluator(authenticators or None)
    leaves = [node for level in apps for node in level.nodes if is_leaf(node)]
    fallbacks = [*_fallbacks(apps)]
    admissions = {node: evaluator.admission(node) for node in [*leaves, *fallbacks]}
    guards = [*dict.fromkeys(guard for node in [*leaves, *fallbacks] for guard in evaluator.guards_before(node))]
    with asking(app, apps, authenticators or _used(admissions.values(), guards)) as asker:
        judge = Judge(admissions, asker)
        entries = run(lambda: _entries(judge, apps, leaves, fallbacks, guards))
    return Audit(entries, [*misuses(app, Dependency), *_unserved(guards)])


async def _entries(
    judge: Judge, apps: list[Level], leaves: list[Node], fallbacks: list[Node], guards: list[Guard]
) -> list[Entry]:
    entries = [entry for node in leaves for entry in await judge.entries(node)]
    entries += [entry for node in fallbacks for entry in await judge.fallback(node)]
    for level in apps:
        if not level.nodes:
            entries += await judge.without_routes(level)
    for guard in guards:
        for exempt in await judge.exempt(guard):
            _add(exempt, entries)
    return entries


def _add(exempt: Entry, entries: list[Entry]) -> None:
    """Add an exempt path that other routes serve too; with the route of its own path it is one entry."""
    for number, entry in enumerate(entries):
        if entry.is_open and (entry.path, entry.why) == (exempt.path, exempt.why):
            methods = METHODS.intersection([*entry.methods, *exempt.methods])
            given = ("ANY",) if methods == METHODS else tuple(sorted(methods))
            entries[number] = replace(entry, methods=given)
            return
    entries.append(exempt)


def _fallbacks(apps: list[Level]) -> Iterable[Node]:
    """Yield the handlers of apps for paths without a route, if they are not those of Starlette."""
    for level in apps:
        if level.router.default != level.router.not_found:
            yield Node(level.router.default, level.router.default, "/*", level)


def _used(admissions: Iterable[Admission], guards: Iterable[Guard]) -> frozenset[Authenticator[Any]]:
    """Return the authenticators of the dependencies and guards that an app uses."""
    gates = {gate for admission in admissions for gate in admission.gates} | {guard.dependency for guard in guards}
    return frozenset(authenticator_of(gate) for gate in gates)


def _unserved(guards: Iterable[Guard]) -> Iterable[str]:
    for guard in guards:
        for path in guard.unserved:
            yield f"the exempt path {guard.prefix}{path} is not served: correct it, or remove it from exempt="
