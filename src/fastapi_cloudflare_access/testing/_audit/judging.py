"""Decision about each route, from its dependencies, its guards and the answers without a token."""

from dataclasses import dataclass, field, replace
from re import Pattern
from typing import NamedTuple

from starlette.routing import Host, Mount

from fastapi_cloudflare_access._logging import METHODS
from fastapi_cloudflare_access._requests.responses import POLICY_VIOLATION
from fastapi_cloudflare_access._routes.tree import Level, Node, behind, has_routes
from fastapi_cloudflare_access.testing._audit.asking import WEBSOCKET, Answer, Asker
from fastapi_cloudflare_access.testing._audit.entries import Entry, Kind
from fastapi_cloudflare_access.testing._audit.narrowing import is_stock, pattern_of
from fastapi_cloudflare_access.testing._audit.paths import (
    VARIANTS,
    host_of,
    host_of_level,
    is_tree,
    levels_of,
    mounted_at,
    prefix_of,
    sample_path,
    sample_prefix,
    shown_path,
)
from fastapi_cloudflare_access.testing._audit.tree import GUARD, Admission, Flaw, Guard, is_websocket

_FIRST_REDIRECT = 300
_METHODS = ("GET", "POST", WEBSOCKET)
_REFUSALS = {401, POLICY_VIOLATION}
_NO_PROOF = "put AccessGuard before the middleware that answers"
_OWN_CODE = Flaw(
    "its class handles requests itself, so its dependencies do not count",
    "write it without that class, or add AccessGuard",
)
_UNPROTECTED: dict[Kind, Flaw] = {
    "route": Flaw("no dependency of access", "write Depends(access.user)"),
    "websocket": Flaw("no dependency of access", "write Depends(access.user)"),
    "frontend": Flaw("no dependency of access", "write dependencies=[Depends(access.user)] on its app or router"),
    "starlette": Flaw("dependencies do not reach it", "write app.add_api_route(…), or add AccessGuard to the app"),
    "docs": Flaw("dependencies do not reach it", "add AccessGuard to the app, or write openapi_url=None"),
    "mount": Flaw("dependencies do not reach it", "mount AccessGuard(app, access=access)"),
    "fallback": Flaw("dependencies do not reach it", "add AccessGuard to the app"),
    "exempt": Flaw(f"exempt from {GUARD}", "remove it from exempt="),
}


class Verdict(NamedTuple):
    """The decision for one method of a route."""

    is_open: bool
    why: str | None = None
    advice: str | None = None
    is_reached: bool = True


@dataclass(frozen=True, slots=True)
class Judge:
    """The routes of an app, and what is known of them before they are asked.

    Attributes:
        admissions: The callers that each route admits by the tree.
        asker: The app, to be asked.
    """

    admissions: dict[Node, Admission]
    asker: Asker
    _patterns: dict[Node, Pattern[str] | None] = field(default_factory=dict[Node, "Pattern[str] | None"])

    async def entries(self, node: Node) -> list[Entry]:
        """Return the entries of a route: one for all methods that end alike."""
        admission = self.admissions[node]
        if node in self.asker.opaque and admission.dependencies:
            gates = [gate for gate in admission.gates if gate not in dict(admission.dependencies)]
            admission = replace(admission, gates=gates, dependencies=[], flaws=[_OWN_CODE, *admission.flaws])
        methods: dict[Verdict, list[str]] = {}
        for method in methods_of(node):
            methods.setdefault(await self._verdict(node, method, admission), []).append(method)
        if is_any(node) and len(methods) == 1:
            methods = {verdict: ["ANY"] for verdict in methods}
        return [_entry(node, admission, verdict, given) for verdict, given in methods.items()]

    async def _verdict(self, node: Node, method: str, admission: Admission) -> Verdict:
        if matches_itself(node) and not admission.gates:
            return Verdict(is_open=True, why=f"its class {type(node.declared).__name__} selects its requests itself")
        if node.dependants and not admission.gates:  # what the tree calls open is not asked
            by = self._served_before(node, method)
            return Verdict(is_open=True) if by is None else _never(by)
        verdicts = [
            await self._ask(node, method, admission, variant) for variant in VARIANTS if _differs(node, variant)
        ]
        verdict = next((verdict for verdict in verdicts if verdict.is_open), verdicts[0])
        if verdict.is_reached and not verdict.is_open and (by := self._served_before(node, method)):
            return _never(by)  # what comes before it refused the request
        if verdict.is_reached or admission.gates or _is_in_an_endpoint(node) or self._served_before(node, method):
            return verdict
        return Verdict(is_open=True, why="the requests of the audit are led elsewhere", advice=_NO_PROOF)

    async def _ask(self, node: Node, method: str, admission: Admission, variant: int) -> Verdict:
        prefix, path = sample_prefix(node.level, variant), sample_path(node, variant)
        if prefix is None or path is None:
            return Verdict(not admission.gates, "no value is known that fits a parameter of its path")
        return decide(node, await self.asker.ask(method, prefix + path or "/", host_of(node)), admission)

    async def exempt(self, guard: Guard) -> list[Entry]:
        """Return the entries of exempt paths that are served by a route of another path."""
        entries: list[Entry] = []
        why, advice = _UNPROTECTED["exempt"]
        for path in sorted(guard.exempt):
            shown = guard.prefix + path
            methods = [method for method in sorted(METHODS) if await self._reaches_another(guard, method, path)]
            if methods:
                given = ("ANY",) if len(methods) == len(METHODS) else tuple(methods)
                entries.append(Entry(shown, given, "exempt", is_open=True, why=why, advice=advice))
        return entries

    async def _reaches_another(self, guard: Guard, method: str, path: str) -> bool:
        """Check whether a request to an exempt path reaches a route with another path."""
        if guard.sample_prefix is None:
            return True
        reached = (await self.asker.ask(method, guard.sample_prefix + path, guard.host)).reached
        return isinstance(reached, Node) and shown_path(reached) != guard.prefix + path

    async def without_routes(self, level: Level) -> list[Entry]:
        """Return the entry of an app without routes, if the objects around it answer requests themselves."""
        prefix, methods = sample_prefix(level), list[str]()
        for method in _METHODS if prefix is not None else ():
            answer = await self.asker.ask(method, f"{prefix}/~0-audit", host_of_level(level))
            if answer.reached is None and not answer.is_refused and (answer.status or 500) < _FIRST_REDIRECT:
                methods.append(method)
        why, advice = _UNPROTECTED["mount"]
        path = f"{prefix_of(level)}/*"
        given = ("ANY",) if len(methods) == len(_METHODS) else tuple(methods)
        return [Entry(path, given, "mount", is_open=True, why=why, advice=advice)] if methods else []

    async def fallback(self, node: Node) -> list[Entry]:
        """Return the entry of an app's own handler for paths without a route."""
        level, admission = node.level, self.admissions[node]
        prefix = sample_prefix(level)
        answer = await self.asker.ask("GET", f"{prefix}/~0-audit/~no-route", host_of_level(level))
        is_open = isinstance(answer.reached, Level) or (answer.reached is None and not answer.is_refused)
        return [_entry_of(f"{prefix_of(level)}/*", ["ANY"], "fallback", admission, Verdict(is_open))]

    def _served_before(self, node: Node, method: str) -> Node | None:
        """Return an earlier route that serves every request to a route, or None."""
        first = self._first_before(node, method, VARIANTS[0])
        if first is None or any(self._first_before(node, method, variant) is not first for variant in VARIANTS[1:]):
            return None
        return first

    def _first_before(self, node: Node, method: str, variant: int) -> Node | None:
        step: Node | None = node
        path, headers = "", [(b"host", host_of(node).encode())]
        while step is not None:
            own = sample_path(step, variant) if step is node else mounted_at(step, variant)
            if own is None:
                return None
            path = own + path
            kind = "websocket" if method == WEBSOCKET else "http"
            scope = {"type": kind, "method": method, "path": path, "root_path": "", "headers": headers}
            for other in step.level.nodes[: step.level.nodes.index(step)]:
                pattern = self._pattern_of(other)
                if other.group is None and (pattern is None or pattern.match(path)) and other.matches(scope):
                    return other
            step = step.level.mount
        return None

    def _pattern_of(self, node: Node) -> Pattern[str] | None:
        if node not in self._patterns:
            self._patterns[node] = pattern_of(node.route)
        return self._patterns[node]


def decide(node: Node, answer: Answer, admission: Admission) -> Verdict:
    """Return whether a route is open, by the answer to a request without a token."""
    reached = answer.reached
    if isinstance(reached, Level):
        return Verdict(is_open=False, why="no request matches it", is_reached=False)
    if reached is not None and reached.route is not node.route:
        return _never(reached)
    if reached is not None:
        return Verdict(is_open=True, why=_declared_in_vain(admission))
    if answer.status is not None and answer.status < _FIRST_REDIRECT:
        what = "a refused request" if answer.is_refused else "a request without a token"
        advice = "send the refusal with its status" if answer.is_refused else _NO_PROOF
        return Verdict(is_open=True, why=f"the app answers {answer.status} to {what}", advice=advice)
    if admission.gates or (answer.is_refused and answer.status in _REFUSALS):
        return Verdict(is_open=False)
    ended = answer.error or f"status {answer.status}"
    why = f"a request ends before it with {ended}, which is no refusal by access"
    return Verdict(is_open=True, why=why, advice=_NO_PROOF)


def _declared_in_vain(admission: Admission) -> str | None:
    return f"reached without a token, in spite of {' and '.join(admission.by)}" if admission.gates else None


def kind_of(node: Node) -> Kind:
    """Return the kind of a route."""
    if node.group is not None:
        return "frontend"
    if isinstance(node.route, Mount | Host):
        return "mount"
    if is_websocket(node):
        return "websocket"
    if node.dependants:
        return "route"
    module = getattr(getattr(node.declared, "endpoint", None), "__module__", "")
    return "docs" if module == "fastapi.applications" else "starlette"


def methods_of(node: Node) -> list[str]:
    """Return the methods with which a route is asked."""
    if is_websocket(node):
        return [WEBSOCKET]
    if not hasattr(node.route, "methods"):
        return [*_METHODS]
    return sorted(node.route.methods or ()) or ["GET", "POST"]


def is_any(node: Node) -> bool:
    """Check whether a route serves every method."""
    return not is_websocket(node) and not getattr(node.route, "methods", None)


def is_leaf(node: Node) -> bool:
    """Check whether a route serves requests itself, and does not lead to an app whose routes are known."""
    return (
        bool(node.dependants) or node.group is not None or not has_routes(behind(getattr(node.route, "app", None))[-1])
    )


def matches_itself(node: Node) -> bool:
    """Check whether the class of a route is of the app's own and selects the requests that it serves."""
    return node.group is None and not all(is_stock(each, "matches") for each in (node.route, node.declared))


def _never(by: Node) -> Verdict:
    return Verdict(is_open=False, why=f"{shown_path(by)} is declared before it", is_reached=False)


def _is_in_an_endpoint(node: Node) -> bool:
    """Check whether the app of a route is itself an endpoint, which is served at one path alone."""
    mounts = [level.mount.route for level in levels_of(node) if level.mount is not None]
    return not all(isinstance(mount, Mount | Host) for mount in mounts)


def _differs(node: Node, variant: int) -> bool:
    """Check whether a variant of the path is to be asked: the first, and each if only answers count."""
    return variant == 0 or (not node.dependants and (is_tree(node) or "{" in shown_path(node)))


def _entry(node: Node, admission: Admission, verdict: Verdict, methods: list[str]) -> Entry:
    return _entry_of(shown_path(node), methods, kind_of(node), admission, verdict)


def _entry_of(path: str, methods: list[str], kind: Kind, admission: Admission, verdict: Verdict) -> Entry:
    if not verdict.is_open:
        by = tuple(admission.by) or ("middleware",)
        callers = tuple(admission.kinds)
        return Entry(
            path,
            tuple(methods),
            kind,
            is_open=False,
            callers=callers,
            policies=tuple(admission.policies),
            by=by,
            why=verdict.why,
            is_reached=verdict.is_reached,
            notes=admission.notes if verdict.is_reached else (),
        )
    unprotected = _UNPROTECTED[kind]
    why, advice = "; ".join(flaw.why for flaw in admission.flaws), next((flaw.advice for flaw in admission.flaws), None)
    if admission.gates or not why:
        why, advice = verdict.why or unprotected.why, verdict.advice
    return Entry(path, tuple(methods), kind, is_open=True, why=why, advice=advice or unprotected.advice)
