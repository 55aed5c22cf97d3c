"""What the audit says of protected WebSockets that pages of any origin may open, or that outlive their token."""

import asyncio
from asyncio import sleep
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache, partial, wraps
from types import ModuleType
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import WebSocketRoute
from support.route_traps import access

from fastapi_cloudflare_access import UserClaims
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.testing import assert_protected
from fastapi_cloudflare_access.testing._audit import notes
from fastapi_cloudflare_access.testing._audit.entries import Note
from fastapi_cloudflare_access.testing._audit.notes import ANY_ORIGIN, NO_END
from fastapi_cloudflare_access.testing._audit.running import audit

ORIGINS = ["https://app.example.com"]
CurrentUser = Annotated[UserClaims, Depends(access.user)]
Socket = Callable[..., Awaitable[None]]


async def endless(socket: WebSocket, user: CurrentUser) -> None: ...


async def ending(socket: WebSocket, user: CurrentUser) -> None:
    async with access.while_valid(user):
        await socket.accept()


async def run_until_the_end(user: UserClaims) -> None:
    async with access.while_valid(user):
        ...


async def by_a_function(socket: WebSocket, user: CurrentUser) -> None:
    await run_until_the_end(user)


async def by_a_function_inside(socket: WebSocket, user: CurrentUser) -> None:
    async def main() -> None:
        await run_until_the_end(user)

    await main()


helpers: Any = ModuleType("helpers")
helpers.run = run_until_the_end


async def by_a_module(socket: WebSocket, user: CurrentUser) -> None:
    await helpers.run(user)


async def with_functions_of_others(socket: WebSocket, user: CurrentUser) -> None:
    await asyncio.sleep(0)
    await sleep(0)


class Room:
    def __init__(self) -> None:
        self.count = 0

    async def join(self, user: UserClaims) -> None:
        await self._run(user)

    @staticmethod
    async def _run(user: UserClaims) -> None:
        await run_until_the_end(user)

    async def talk(self, socket: WebSocket, user: CurrentUser) -> None:
        await self.join(user)


class LargeRoom(Room): ...


room = LargeRoom()


async def by_an_object(socket: WebSocket, user: CurrentUser) -> None:
    await room.join(user)


async def by_a_class(socket: WebSocket, user: CurrentUser) -> None:
    await Room().join(user)


async def by_an_object_of_a_dependency(
    socket: WebSocket, user: CurrentUser, found: Annotated[Room, Depends(Room)]
) -> None: ...


@cache
def the_room() -> Room:
    return Room()


async def by_a_cached_function(socket: WebSocket, user: CurrentUser) -> None:
    await the_room().join(user)


async def lease_of(user: CurrentUser) -> AsyncIterator[None]:
    async with access.while_valid(user):
        yield


async def by_a_dependency(socket: WebSocket, lease: Annotated[None, Depends(lease_of)]) -> None: ...


def ends(handler: Socket) -> Socket:
    @wraps(handler)
    async def until_the_end(socket: WebSocket, user: CurrentUser) -> None:
        async with access.while_valid(user):
            await handler(socket, user)

    return until_the_end


def logs(handler: Socket) -> Socket:
    @wraps(handler)
    async def logged(socket: WebSocket, user: CurrentUser) -> None:
        await handler(socket, user)

    return logged


@asynccontextmanager
async def unused(user: UserClaims) -> AsyncIterator[None]:
    async with access.while_valid(user):
        yield


def first_of_two(socket: WebSocket, user: CurrentUser) -> None:
    return second_of_two(socket, user)


def second_of_two(socket: WebSocket, user: CurrentUser) -> None:
    return first_of_two(socket, user)


def notes_of(app: Any, path: str = "/live") -> list[Note]:
    (entry,) = (entry for entry in audit(app, [access]).entries if entry.path == path)
    return [*entry.notes]


def with_socket(handler: Any, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None, **options)
    app.add_api_websocket_route("/live", handler)
    return app


ENDING: dict[str, Any] = {
    "itself": ending,
    "a function": by_a_function,
    "a function inside": by_a_function_inside,
    "an object": by_an_object,
    "a class": by_a_class,
    "a module": by_a_module,
    "an object of a dependency": by_an_object_of_a_dependency,
    "a cached function": by_a_cached_function,
    "a dependency": by_a_dependency,
    "a method": room.talk,
    "a decorator": ends(endless),
    "below a decorator": logs(ending),
    "a partial function": partial(ending),
}


@pytest.mark.parametrize("handler", ENDING.values(), ids=ENDING)
def test_a_websocket_that_its_code_ends_with_the_token_has_no_note_on_that(handler: Any) -> None:
    assert notes_of(with_socket(handler)) == [ANY_ORIGIN]


@pytest.mark.parametrize("handler", [endless, logs(endless), first_of_two, with_functions_of_others], ids=range(4))
def test_a_websocket_without_while_valid_has_a_note(handler: Any) -> None:
    assert notes_of(with_socket(handler)) == [ANY_ORIGIN, NO_END]


def test_no_more_functions_are_read_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "MAX_FUNCTIONS", 1)
    assert notes_of(with_socket(by_a_function)) == [ANY_ORIGIN, NO_END]
    assert notes_of(with_socket(ending)) == [ANY_ORIGIN]


def test_a_handler_whose_variable_is_not_set_yet_is_read() -> None:
    async def waits(socket: WebSocket, user: CurrentUser) -> None:
        await later(socket, user)

    notes_then = notes_of(with_socket(waits))
    later = ending
    assert notes_then == [ANY_ORIGIN, NO_END]
    assert notes_of(with_socket(waits)) == [ANY_ORIGIN]
    assert later is ending


class ComparedByName(type):
    """A metaclass whose classes have no hash."""

    __hash__: Any = None


class WithoutHash(metaclass=ComparedByName):
    def run(self) -> None: ...


class Standing:
    """An object that stands for another one, which is not there yet."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("the other one is not there")


@pytest.mark.parametrize("kind", [WithoutHash, Standing], ids=["without a hash", "for another one"])
def test_no_object_that_a_handler_names_breaks_the_audit(kind: Any) -> None:
    value = kind()

    async def handler(socket: WebSocket, user: CurrentUser) -> None:
        value.run()

    assert notes_of(with_socket(handler)) == [ANY_ORIGIN, NO_END]


def test_a_guard_that_ends_streams_leaves_no_note_on_the_end() -> None:
    app = with_socket(endless)
    app.add_middleware(AccessGuard, access=access)
    assert notes_of(app) == [ANY_ORIGIN, NO_END]
    app = with_socket(endless)
    app.add_middleware(AccessGuard, access=access, end_streams=True)
    assert notes_of(app) == [ANY_ORIGIN]
    outer = FastAPI(openapi_url=None)
    outer.mount("/site", AccessGuard(with_socket(endless), access=access, end_streams=True))
    assert notes_of(outer, "/site/live") == [ANY_ORIGIN]


def test_same_origin_in_front_leaves_no_note_on_origins() -> None:
    app = with_socket(ending)
    app.add_middleware(SameOrigin, origins=ORIGINS)
    assert notes_of(app) == []
    assert notes_of(SameOrigin(with_socket(ending), origins=ORIGINS)) == []
    outer = FastAPI(openapi_url=None)
    outer.mount("/site", SameOrigin(with_socket(ending), origins=ORIGINS))
    outer.mount("/open", with_socket(ending))
    assert notes_of(outer, "/site/live") == []
    assert notes_of(outer, "/open/live") == [ANY_ORIGIN]
    outer.add_middleware(SameOrigin, origins=ORIGINS)
    assert notes_of(outer, "/open/live") == []


def test_a_websocket_for_services_has_no_note_on_origins() -> None:
    async def feed(socket: WebSocket, caller: Annotated[Any, Depends(access.service)]) -> None: ...

    assert notes_of(with_socket(feed)) == [NO_END]


def test_only_websockets_that_are_protected_and_reached_have_notes() -> None:
    app = with_socket(endless)
    app.add_api_websocket_route("/live/{name}", endless)
    app.add_api_websocket_route("/live/again", endless)
    app.add_api_route("/me", lambda: None, dependencies=[Depends(access.user)])

    @app.websocket("/open")
    async def is_open(socket: WebSocket) -> None: ...

    found = {entry.path: len(entry.notes) for entry in audit(app, [access]).entries}
    assert found == {"/live": 2, "/live/{name}": 2, "/live/again": 0, "/me": 0, "/open": 0}


class Endpoint(WebSocketEndpoint):
    async def on_connect(self, websocket: WebSocket) -> None:
        await room.join(websocket.state.cloudflare_access)


def test_an_endpoint_of_starlette_is_read_too() -> None:
    async def starlette_endpoint(socket: WebSocket) -> None: ...

    routes = [WebSocketRoute("/live", Endpoint), WebSocketRoute("/endless", starlette_endpoint)]
    app = AccessGuard(Starlette(routes=routes), access=access)
    assert notes_of(app) == [ANY_ORIGIN]
    assert notes_of(app, "/endless") == [ANY_ORIGIN, NO_END]


def test_notes_are_no_failure_and_stand_below_one() -> None:
    app = with_socket(endless)
    assert_protected(app, access)
    app.add_api_route("/open", lambda: None)
    with pytest.raises(AssertionError) as failure:
        assert_protected(app, access)
    assert str(failure.value).endswith(
        "Of the routes that are protected (these are no failures):\n\n"
        f"  WS /live  {ANY_ORIGIN.what} → {ANY_ORIGIN.advice}\n"
        f"  WS /live  {NO_END.what} → {NO_END.advice}"
    )


def test_an_attribute_that_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from Python 3.14 on, where `inspect.getattr_static` hashes the class of an object."""

    def refuse(*_: object) -> object:
        raise TypeError("unhashable type")

    monkeypatch.setattr(notes, "getattr_static", refuse)

    value: Any = Standing()

    async def handler(socket: WebSocket, user: CurrentUser) -> None:
        value.run()

    assert notes_of(with_socket(handler)) == [ANY_ORIGIN, NO_END]
