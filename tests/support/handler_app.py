"""An app with a handler of each kind that FastAPI knows; each of them answers with the address of its caller."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from queue import Queue
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims

HAS_EVENT_STREAMS = find_spec("fastapi.sse") is not None
"""FastAPI has event streams of its own since 0.135."""


@dataclass
class HandlerApp:
    """The app.

    Attributes:
        app: The app.
        done: What its background tasks and dependencies did after the response, by the address of the caller.
    """

    app: FastAPI
    done: "defaultdict[str | None, Queue[str]]" = field(default_factory=lambda: defaultdict(Queue))


def make_app(access: CloudflareAccess[UserClaims]) -> HandlerApp:
    made = HandlerApp(FastAPI(lifespan=access.lifespan))
    for add in (_add_functions, _add_late_work, _add_streams, _add_dependencies, _add_routers, _add_bare_asgi):
        add(made, access)
    return made


def _add_functions(made: HandlerApp, access: CloudflareAccess[UserClaims]) -> None:
    @made.app.get("/sync")
    def sync(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
        return user.email

    @made.app.get("/async")
    async def asynchronous(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
        return user.email

    @made.app.get("/any")
    async def any_caller(caller: Annotated[UserClaims | ServiceClaims, Depends(access)]) -> str | None:
        return caller.email if isinstance(caller, UserClaims) else caller.client_id

    @made.app.get("/state", dependencies=[Depends(access.user)])
    def state(request: Request) -> Any:
        return request.state.cloudflare_access.email


def _add_late_work(made: HandlerApp, access: CloudflareAccess[UserClaims]) -> None:
    @made.app.get("/background")
    def background(user: Annotated[UserClaims, Depends(access.user)], tasks: BackgroundTasks) -> str | None:
        tasks.add_task(lambda: made.done[user.email].put("sync"))
        tasks.add_task(note_later, user)
        return user.email

    async def note_later(user: UserClaims) -> None:
        await asyncio.sleep(0)
        made.done[user.email].put("async")

    def in_request(user: Annotated[UserClaims, Depends(access.user)]) -> Iterator[UserClaims]:
        yield user
        made.done[user.email].put("request")

    async def in_function(user: Annotated[UserClaims, Depends(access.user)]) -> AsyncIterator[UserClaims]:
        yield user
        made.done[user.email].put("function")

    @made.app.get("/generators")
    async def generators(
        first: Annotated[UserClaims, Depends(in_request, scope="request")],
        second: Annotated[UserClaims, Depends(in_function, scope="function")],
    ) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            made.done[first.email].put("stream")
            yield f'"{second.email}"'

        return StreamingResponse(lines(), media_type="application/json")


def _add_streams(made: HandlerApp, access: CloudflareAccess[UserClaims]) -> None:
    @made.app.get("/stream")
    def stream(user: Annotated[UserClaims, Depends(access.user)]) -> StreamingResponse:
        return StreamingResponse((part for part in ('"', str(user.email), '"')), media_type="application/json")

    @made.app.get("/turns/{number}")
    async def turns(user: Annotated[UserClaims, Depends(access.user)], number: int) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for _ in range(number):
                yield f"{user.email}\n"
                await asyncio.sleep(0)

        return StreamingResponse(lines(), media_type="text/plain")

    @made.app.get("/events")
    async def events(user: Annotated[UserClaims, Depends(access.user)]) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            yield f'data: "{user.email}"\n\n'

        return StreamingResponse(lines(), media_type="text/event-stream")

    if HAS_EVENT_STREAMS:
        from fastapi.sse import EventSourceResponse

        @made.app.get("/native-events", response_class=EventSourceResponse)
        async def native_events(user: Annotated[UserClaims, Depends(access.user)]) -> AsyncIterator[str | None]:
            yield user.email

    @made.app.websocket("/socket")
    async def socket(socket: WebSocket, user: Annotated[UserClaims, Depends(access.user)]) -> None:
        await socket.accept()
        await socket.send_json(user.email)
        await socket.close()


def _add_dependencies(made: HandlerApp, access: CloudflareAccess[UserClaims]) -> None:
    class Page:
        def __init__(self, user: Annotated[UserClaims, Depends(access.user)], size: int = 10) -> None:
            self.user, self.size = user, size

    @dataclass(frozen=True)
    class Prefix:
        text: str

        def __call__(self, user: Annotated[UserClaims, Depends(access.user)]) -> str:
            return f"{self.text}{user.email}"

    @made.app.get("/class")
    def of_class(page: Annotated[Page, Depends()]) -> str | None:
        assert page.size == 10
        return page.user.email

    @made.app.get("/object")
    def of_object(text: Annotated[str, Depends(Prefix(""))]) -> str:
        return text


def _add_routers(made: HandlerApp, access: CloudflareAccess[UserClaims]) -> None:
    inner = APIRouter(prefix="/inner", dependencies=[Depends(access.user)])
    middle = APIRouter(prefix="/middle")
    outer = APIRouter(prefix="/outer")

    @inner.get("/state")
    def state(request: Request) -> Any:
        return request.state.cloudflare_access.email

    middle.include_router(inner)
    outer.include_router(middle)
    made.app.include_router(outer)
    guarded = APIRouter()

    @guarded.get("/user")
    def user(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
        return user.email

    made.app.include_router(guarded, prefix="/included", dependencies=[Depends(access)])
    mounted = FastAPI(dependencies=[Depends(access.user)])
    mounted.include_router(guarded)
    mounted.mount("/deeper", FastAPI(routes=mounted.routes))
    made.app.mount("/mounted", mounted)


def _add_bare_asgi(made: HandlerApp, access: CloudflareAccess[UserClaims]) -> None:
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse(f'"{(await access.user(connection=request)).email}"')

    class BareApp:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            user = await access.user(connection=Request(scope))
            await PlainTextResponse(f'"{user.email}"')(scope, receive, send)

    made.app.router.routes += [Route("/endpoint", Endpoint), Route("/plain", BareApp())]
