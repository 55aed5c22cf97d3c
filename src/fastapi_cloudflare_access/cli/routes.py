"""The command `cf-access routes`: which callers each route of an app admits."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access.cli.formatting import plural, printable
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import CommandError, Route, RouteNote, RoutesReport, Status
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing._audit.entries import Entry
from fastapi_cloudflare_access.testing._audit.report import check_listed, unserved
from fastapi_cloudflare_access.testing._audit.running import audit

MAX_PATH = 40
"""Columns of the paths at most; a longer path moves what follows."""


def report_on(app: str, listed: Sequence[str], accesses: Iterable[str]) -> RoutesReport:
    """Import an app, and report which callers each of its routes admits.

    Args:
        app: The import string of the app, `package.module:app`.
        listed: The paths that may be open.
        accesses: The import strings of the objects that count; by default all that the app uses.

    Raises:
        CommandError: The app cannot be imported, or is not one whose routes are known.
    """
    found = imported(app)
    objects = [imported(name) for name in accesses]
    for name, one in zip(accesses, objects, strict=True):
        if not isinstance(one, AccessBase):
            raise CommandError(f"{printable(name)} is not an access object, such as access.")
    try:
        items = check_listed(listed)
        result = audit(found, objects)
    except ConfigurationError as error:
        raise CommandError(f"{printable(app)} cannot be audited: {error}.") from None
    routes = [_route(entry, items) for entry in result.entries]
    problems = [*result.problems, *unserved(result, items)]
    ok = not problems and all(route.listed for route in routes if route.open)
    return RoutesReport(ok=ok, routes=routes, problems=problems)


def imported(name: str) -> Any:
    """Import an object by its import string; what its module prints goes to standard error.

    Raises:
        CommandError: It does not exist, or its module fails.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise CommandError(f"{printable(name)!r} is not an import string: write package.module:app.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):
            value: Any = import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except ConfigurationError:
        raise
    except ModuleNotFoundError as missing:
        raise CommandError(f"{printable(module)} cannot be imported: there is no module {missing.name}.") from None
    except AttributeError as missing:
        raise CommandError(f"{printable(name)} cannot be imported: {printable(str(missing))}.") from None
    except Exception as failure:  # noqa: BLE001 - the module of the app may raise anything
        kind, text = type(failure).__name__, printable(str(failure))
        raise CommandError(f"{printable(module)} cannot be imported: {kind}: {text}.") from None
    return value


def show(report: RoutesReport, screen: Screen) -> None:
    """Print a line for each route, the changes that protect the open ones, and a summary."""
    paths = [printable(route.path) for route in report.routes]
    width = min(max(map(len, paths), default=0), MAX_PATH)
    for number, (route, path) in enumerate(zip(report.routes, paths, strict=True), 1):
        status = _status(route)
        methods = ",".join(method for method in route.methods if method != "HEAD" or "GET" not in route.methods)
        screen.row(status, f"{methods:<7} {path:<{width}}  ", _who(route))
        following = report.routes[number] if number < len(paths) else None
        if following is None or _hints(following) != _hints(route):
            for hint in _hints(route):
                screen.hint(hint)
    for problem in report.problems:
        screen.line()
        screen.row("failed", "", problem)
    screen.line()
    _summary(report, screen)


def _summary(report: RoutesReport, screen: Screen) -> None:
    is_open = [route for route in report.routes if route.open]
    wrong = [route for route in is_open if not route.listed]
    text = f"{plural(len(report.routes), 'route')}, {len(is_open)} open, {len(wrong)} of them not listed"
    screen.write(screen.title(text, "ok" if report.ok else "failed"))
    if wrong:
        names = [*dict.fromkeys(f"WS {route.path}" if route.methods == ["WS"] else route.path for route in wrong)]
        screen.hint(f"to list them: {' '.join(f'--open {name!r}' for name in names)}")


def _status(route: Route) -> Status:
    if not route.reached:
        return "skipped"
    if route.open:
        return "warning" if route.listed else "failed"
    return "warning" if route.notes else "ok"


def _hints(route: Route) -> list[str]:
    return [str(route.hint)] if _status(route) == "failed" else [note.hint for note in route.notes]


def _who(route: Route) -> str:
    if route.open or not route.reached:
        return f"{route.who}, as listed" if route.listed else f"{route.who}: {route.why}"
    return "; ".join([f"{route.who} ({', '.join(route.by)})", *(note.what for note in route.notes)])


def _route(entry: Entry, listed: Sequence[str]) -> Route:
    return Route(
        path=entry.path,
        methods=[*entry.methods],
        kind=entry.kind,
        open=entry.is_open,
        listed=entry.is_open and entry.is_listed(listed),
        reached=entry.is_reached,
        who=entry.who,
        callers=[*entry.callers],
        policies=[*entry.policies],
        by=[*entry.by],
        why=entry.why,
        hint=entry.advice,
        notes=[RouteNote(what=note.what, hint=note.advice) for note in entry.notes],
    )
