"""What fuzzers call for the audit of routes: each input builds an app, which is audited, and then asked for real.

An AssertionError tells of a handler that ran without a token on a route that the audit calls protected.

Run it with coverage guidance: `python tests/fuzz/routes_target.py tests/fuzz/routes_corpus -max_total_time=60`.
"""

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_OPERATIONS = 8
MAX_LENGTH = 3 * MAX_OPERATIONS
PATHS = ("/", "/x", "/x/", "/x/{id}", "/x/{rest:path}", "/{any}", "/healthz", "/docs", "/a/x", "/x/{number:int}/y")
PREFIXES = ("", "/a", "/a/b", "/{tenant}", "/x", "/x/7")
VALUES = {"{id}": "7", "{rest:path}": "7/y", "{any}": "healthz", "{number:int}": "7", "{tenant}": "a"}
EXEMPT: tuple[tuple[str, ...], ...] = ((), ("/healthz",), ("/x", "/docs"), ("/",), ("/a/x",))


def load() -> Callable[[bytes], None]:  # noqa: C901 - the operations are one machine
    """Import the package, instrumented or not, and return the target."""
    from fastapi import APIRouter, Depends, FastAPI
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.routing import Mount, Route, Router
    from support.route_traps import STAFF, access, handler, other, page, plain, ran, raw, talk

    from fastapi_cloudflare_access.errors import ConfigurationError
    from fastapi_cloudflare_access.guard import AccessGuard
    from fastapi_cloudflare_access.testing._audit.running import audit

    def nothing() -> None:
        """Stand in for a dependency that an app overrides."""

    async def current(user: Any = Depends(access.user)) -> Any:  # noqa: B008 - as an app may write it
        return user

    async def guest(user: Any = Depends(access.optional)) -> Any:  # noqa: B008 - the same
        return user

    dependencies: tuple[list[Any], ...] = (
        [],
        [Depends(access.user)],
        [Depends(access)],
        [Depends(guest)],
        [Depends(other.user)],
        [Depends(current)],
        [Depends(access.require(STAFF))],
        [Depends(access.service)],
    )

    class Builder:
        """An app in the making."""

        def __init__(self, first: int) -> None:
            docs: dict[str, Any] = {} if first & 8 else {"openapi_url": None}
            self.root = FastAPI(dependencies=dependencies[first & 7], **docs)
            self.apps: list[tuple[Any, str]] = [(self.root, "")]
            self.paths = {"/", "/docs", "/openapi.json", "/nothing/here"}

        def add(self, operation: int, place: int, choice: int) -> None:
            app, prefix = self.apps[-1]
            path, given = PATHS[place % len(PATHS)], dependencies[choice & 7]
            match operation % 12:
                case 0 | 1:
                    app.add_api_route(path, handler, dependencies=given)
                case 2:
                    app.add_api_websocket_route(path, talk, dependencies=given)
                case 3:
                    app.add_route(path, page)
                case 4:
                    app.router.add_websocket_route(path, talk)
                case 5:
                    router = APIRouter(dependencies=dependencies[choice >> 3 & 7])
                    router.add_api_route(path, handler, dependencies=given)
                    router.add_api_websocket_route(path, talk)
                    app.include_router(router, prefix=PREFIXES[place % 3], dependencies=dependencies[choice >> 5])
                    self.paths.add(real(prefix + PREFIXES[place % 3] + path))
                case 6 | 7:
                    self.mount(app, prefix, place, choice)
                case 8:
                    guard = self.guard(place, choice)
                    app.add_middleware(AccessGuard, **guard)
                case 9:
                    app.dependency_overrides[(access.user, access, current, access.service)[place % 4]] = nothing
                case 10:
                    app.router.routes.append(self.bare(path, place, choice))
                case _:
                    self.apps = self.apps[:1] if choice & 1 else self.apps
                    app.add_middleware(GZipMiddleware)
            self.paths.add(real(prefix + path))

        def guard(self, place: int, choice: int) -> dict[str, Any]:
            return {
                "access": other if choice & 16 else access,
                "exempt": EXEMPT[place % len(EXEMPT)],
                "policy": STAFF if choice & 32 else None,
            }

        def bare(self, path: str, place: int, choice: int) -> Any:
            """Return a route, or a mount, of Starlette, with or without middleware of its own."""
            around = [Middleware(AccessGuard, **self.guard(place, choice))] if choice & 1 else []
            if choice & 2:
                return Route(path, page, middleware=around)
            inner = Router([Route(path, page)])
            self.paths.add(real(PREFIXES[place % len(PREFIXES)] + path))
            return Mount(PREFIXES[place % len(PREFIXES)], inner, middleware=around)

        def mount(self, app: Any, prefix: str, place: int, choice: int) -> None:
            """Mount another app, which goes on to be built; or one whose routes are not known."""
            below = PREFIXES[place % len(PREFIXES)]
            inner: Any = raw if choice & 2 else plain(dependencies=dependencies[choice >> 5])
            served = AccessGuard(inner, **self.guard(place, choice)) if choice & 1 else inner
            app.mount(below, GZipMiddleware(served) if choice & 4 else served)
            self.paths |= {real(f"{prefix}{below}{path}") for path in ("/", "/x", "/healthz", "/docs")}
            if inner is not raw:
                self.apps.append((inner, prefix + below))

    def one_input(data: bytes) -> None:
        if not data:
            return
        builder = Builder(data[0])
        try:
            for start in range(1, min(len(data), MAX_LENGTH) - 2, 3):
                builder.add(*data[start : start + 3])
            entries = audit(builder.root, [access]).entries
        except (ConfigurationError, AssertionError, ValueError) as problem:
            if isinstance(problem, ConfigurationError) or "starlette" in str(problem) or is_of_an_app(problem):
                return
            raise
        assert ran == [], "a handler ran in the audit"
        for kind, path in asyncio.run(served(builder.root, sorted(builder.paths), ran)):
            shown = [entry for entry in entries if entry.is_open and covers(entry, kind, path)]
            assert shown, f"{kind} {path} is open, and is not among {entries}"

    return one_input


async def served(app: Any, paths: Iterable[str], ran: list[str]) -> list[tuple[str, str]]:
    """Return the kinds of connections and the paths on which a handler runs without a token."""
    found: list[tuple[str, str]] = []
    for path in paths:
        for kind in ("http", "websocket"):
            with suppress(Exception):
                await app(scope_of(kind, path), receive_of(kind), sent)
            if ran:
                found.append((kind, path))
                ran.clear()
    return found


def scope_of(kind: str, path: str) -> dict[str, Any]:
    """Return the scope of a request without a token, as a server makes it."""
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "https" if kind == "http" else "wss",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"app.example.com")],
        "client": ("127.0.0.1", 1),
        "server": ("app.example.com", 443),
        **({"method": "GET"} if kind == "http" else {"subprotocols": []}),
    }


def receive_of(kind: str) -> Callable[[], Any]:
    """Return the `receive` of a request without a body."""

    async def receive() -> dict[str, Any]:
        if kind == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def sent(message: Any) -> None:
    """Drop what the app sends."""


def real(path: str) -> str:
    """Return a path with values for its parameters."""
    for template, value in VALUES.items():
        path = path.replace(template, value)
    return path or "/"


def covers(entry: Any, kind: str, path: str) -> bool:
    """Check whether an entry of an audit is about this path."""
    if (kind == "websocket") is not ("WS" in entry.methods) and "ANY" not in entry.methods:
        return False
    pattern = "".join(
        ".*" if part.endswith(":path}") else "[^/]+" if part.startswith("{") else re.escape(part)
        for part in re.split(r"({[^}]*})", entry.path.removesuffix("/*"))
    )
    return re.fullmatch(pattern + ("(?:/.*)?" if entry.path.endswith("/*") else ""), path) is not None


def is_of_an_app(problem: BaseException) -> bool:
    """Check whether FastAPI or Starlette refused what the app declares."""
    frame, files = problem.__traceback__, list[str]()
    while frame is not None:
        files.append(frame.tb_frame.f_code.co_filename)
        frame = frame.tb_next
    return "_audit" not in "".join(files) and re.search(r"[/\\](?:fastapi|starlette)[/\\]", files[-1]) is not None


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]
    from fuzz.guided import fuzz

    logging.disable()
    names = ("asking", "entries", "judging", "narrowing", "paths", "replacing", "report", "running", "tree")
    fuzz(load, ["_routes.tree", "_routes.guarded_app", *(f"testing._audit.{name}" for name in names)])
