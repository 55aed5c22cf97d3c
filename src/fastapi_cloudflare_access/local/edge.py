"""The edge: one ASGI app that is the team domain on one host and stands before the apps on the others."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_cloudflare_access.local.backends import Backend, Nothing
from fastapi_cloudflare_access.local.certs import send_certs
from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.control import CONTROL_PATH, control
from fastapi_cloudflare_access.local.cookies import machine_cookie
from fastapi_cloudflare_access.local.decision import Pass, decide
from fastapi_cloudflare_access.local.edge_request import Call, headers_for_app, new_ray
from fastapi_cloudflare_access.local.identity import IDENTITY_PATH, get_identity
from fastapi_cloudflare_access.local.local_access import Realm
from fastapi_cloudflare_access.local.login import AUTHORIZED_PATH, LOGOUT_PATH, authorized, login, logout
from fastapi_cloudflare_access.local.pages import message
from fastapi_cloudflare_access.local.responses import LOGIN_PATH, RESOURCE_PATH, answer
from fastapi_cloudflare_access.local.upstream import Upstream
from fastapi_cloudflare_access.settings import CERTS_PATH


class Edge:
    """The whole local Access as an ASGI app.

    Attributes:
        realm: What it knows.
        backend: What stands behind apps without an upstream of their own.
    """

    def __init__(self, realm: Realm, backend: Backend | None = None) -> None:
        """Stand before `backend`, and before the upstreams that the apps name."""
        self.realm = realm
        self.backend = backend or Nothing()
        self._upstreams: Mapping[str, Upstream] = {
            app.tag: Upstream(app.upstream) for app in realm.config.apps if app.upstream
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a handshake, or live as long as the server does."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        call = Call(scope)
        if call.method == "CONNECT":
            await message("There is no way through here", status=405)(scope, receive, send)
        elif call.is_ambiguous:
            await _ambiguous()(scope, receive, send)
        elif call.host in self.realm.addresses.team_hosts:
            await self._as_team(call, receive, send)
        elif call.host in self.realm.config.hosts:
            await self._as_edge(call, receive, send)
        else:
            await _no_such_host(self.realm, call)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        for backend in (self.backend, *self._upstreams.values()):
            await backend.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for backend in (self.backend, *self._upstreams.values()):
            await backend.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _as_team(self, call: Call, receive: Receive, send: Send) -> None:
        if call.path == CERTS_PATH and call.method == "GET":
            await send_certs(self.realm.certs, call, receive, send)
            return
        response = await self._team_page(call, _pieces(receive))
        await response(call.scope, receive, send)

    async def _team_page(self, call: Call, body: AsyncIterator[bytes]) -> Response:
        if call.is_websocket:
            return Response(status_code=404)
        if call.path.startswith(LOGIN_PATH):
            return await login(call, self.realm, body)
        if call.path == LOGOUT_PATH:
            return logout(call, self.realm)
        if call.path == IDENTITY_PATH:
            return get_identity(call, self.realm)
        if call.path == "/" or call.path.startswith(CONTROL_PATH):
            return await control(call, self.realm, body)
        return _nothing_here(self.realm, call)

    async def _as_edge(self, call: Call, receive: Receive, send: Send) -> None:
        app = self.realm.app_at(call.host, call.path)
        own = _edge_page(call, self.realm, app)
        if own is not None or app is None:
            await (own or _nothing_here(self.realm, call))(call.scope, receive, send)
            return
        decision = decide(call, app, self.realm)
        if isinstance(decision, Pass):
            await self._pass_on(call, app, decision, receive, send)
        else:
            await answer(decision.kind, call, app, self.realm)(call.scope, receive, send)

    async def _pass_on(self, call: Call, app: App, passed: Pass, receive: Receive, send: Send) -> None:
        ray = new_ray()
        headers = headers_for_app(
            call, ray=ray, token=passed.token, email=passed.email, country=passed.country, drop=passed.drop
        )
        extra = [(b"cf-ray", ray.encode())]
        if passed.sets_cookie and passed.token:
            extra.append((b"set-cookie", machine_cookie(call, self.realm, passed.token).encode()))

        async def send_with_extra(event: Message) -> None:
            if event["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                event = {**event, "headers": [*event.get("headers", ()), *extra]}
            await send(event)

        backend = self._upstreams.get(app.tag, self.backend)
        await backend({**call.scope, "headers": headers}, receive, send_with_extra)


def _edge_page(call: Call, realm: Realm, app: App | None) -> Response | None:
    """Give what is answered on every app's host, and never reaches an app."""
    if call.path.startswith("/cdn-cgi/"):
        pages = {AUTHORIZED_PATH: authorized, LOGOUT_PATH: logout, IDENTITY_PATH: get_identity}
        found = None if call.is_websocket else pages.get(call.path)
        return found(call, realm) if found else _nothing_here(realm, call)
    if app and (call.path == RESOURCE_PATH or call.path.startswith(RESOURCE_PATH + "/")):
        return JSONResponse(_resource(call, realm))
    return None


def _resource(call: Call, realm: Realm) -> dict[str, Any]:
    return {
        "resource": f"{call.scheme}://{call.netloc}{call.path.removeprefix(RESOURCE_PATH)}",
        "protected": True,
        "team_domain": realm.addresses.issuer.partition("://")[2],
        "authorization_servers": [realm.addresses.issuer],
        "authentication_methods": [{"name": "cloudflared"}, {"name": "service_token"}],
    }


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        event = await receive()
        yield event.get("body", b"")
        if not event.get("more_body"):
            return


def _ambiguous() -> Response:
    """Judged as one path, the request could be answered as another."""
    text = "It has dot segments, backslashes or a fragment, which servers read differently. Ask for the path itself."
    return message("The address is ambiguous", text, status=400)


def _no_such_host(realm: Realm, call: Call) -> Response:
    links = {app.name: realm.addresses.origin(app.host) + app.paths[0] for app in realm.config.apps}
    text = f"The team is at {realm.addresses.issuer}, and the apps are these:"
    return message("No app is on this host", text, status=404 if call.netloc else 400, links=links)


def _nothing_here(realm: Realm, call: Call) -> Response:
    links = {app.name: realm.addresses.origin(app.host) + app.paths[0] for app in realm.config.apps}
    if call.host not in realm.addresses.team_hosts:
        links["The control page of the team"] = realm.addresses.issuer
    return message("Nothing is here", "The apps are these:", status=404, links=links)
