"""The edge: an ASGI app that serves the team domain and protects the apps."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_cloudflare_access.local.backends import Backend, NoBackend
from fastapi_cloudflare_access.local.certs import send_certs
from fastapi_cloudflare_access.local.cli_login import (
    CERT_SIGN_PATH,
    CLI_PATH,
    TRANSFER_PATH,
    fetch_transfer,
    refuse_certificate,
    send_to_cli,
)
from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.control import CONTROL_PATH, control
from fastapi_cloudflare_access.local.cookies import service_cookie
from fastapi_cloudflare_access.local.decision import Forward, decide
from fastapi_cloudflare_access.local.discovery import CONFIGURATION_PATH, configuration
from fastapi_cloudflare_access.local.edge_request import EdgeRequest, headers_for_app, new_ray
from fastapi_cloudflare_access.local.identity import get_identity
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.login import AUTHORIZED_PATH, LOGOUT_PATH, authorized, login, logout
from fastapi_cloudflare_access.local.oauth import OAUTH_PATH, SERVER_PATH, oauth, server_metadata
from fastapi_cloudflare_access.local.open_requests import OpenRequest, OpenRequests
from fastapi_cloudflare_access.local.pages import message
from fastapi_cloudflare_access.local.request_log import RequestLine
from fastapi_cloudflare_access.local.request_log import logger as request_logger
from fastapi_cloudflare_access.local.responses import LOGIN_PATH, RESOURCE_PATH, build_response
from fastapi_cloudflare_access.local.upstream import Upstream
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.settings import CERTS_PATH, IDENTITY_PATH


class Edge:
    """The whole local Access as an ASGI app.

    Attributes:
        local_access: Configuration and state.
        backend: Backend of the apps without an upstream.
        open_requests: Requests and WebSockets that are open.
    """

    def __init__(self, local_access: LocalAccess, backend: Backend | None = None) -> None:
        """Store the backend, and add an upstream for each app that names one."""
        self.local_access = local_access
        self.backend = backend or NoBackend()
        self.open_requests = OpenRequests()
        self._upstreams: Mapping[str, Upstream] = {
            app.tag: Upstream(app.upstream, ca=app.upstream_ca) for app in local_access.config.apps if app.upstream
        }

    async def start(self) -> None:
        """Start the backends."""
        for backend in (self.backend, *self._upstreams.values()):
            await backend.start()

    async def stop(self) -> None:
        """Stop the backends."""
        for backend in (self.backend, *self._upstreams.values()):
            await backend.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to a request or handshake, or run the lifespan."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        request = EdgeRequest(scope)
        send = _with_date(send, self.local_access.clock)
        line = RequestLine(request) if request_logger.isEnabledFor(logging.INFO) else None
        if line:
            send = line.wrap(send)
        with self.open_requests.tracked(scope) as opened, line or nullcontext():
            await self._serve(request, receive, send, opened, line)

    async def _serve(
        self, request: EdgeRequest, receive: Receive, send: Send, opened: OpenRequest, line: RequestLine | None
    ) -> None:
        if request.method == "CONNECT":
            await message("CONNECT is not supported", "Use another method.", status=405)(request.scope, receive, send)
        elif request.is_ambiguous:
            await _ambiguous_path()(request.scope, receive, send)
        elif request.host == self.local_access.addresses.transfer_host and request.path.startswith(TRANSFER_PATH):
            await (await fetch_transfer(request, self.local_access))(request.scope, receive, send)
        elif request.host in self.local_access.addresses.team_hosts:
            await self._serve_team(request, receive, send)
        elif request.host in self.local_access.config.hosts:
            await self._serve_app(request, receive, send, opened, line)
        else:
            await _unknown_host(self.local_access, request)(request.scope, receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve_team(self, request: EdgeRequest, receive: Receive, send: Send) -> None:
        is_control = request.path == "/" or request.path.startswith(CONTROL_PATH)
        if self.local_access.addresses.is_former(request.host) and not is_control:
            await _no_team(self.local_access)(request.scope, receive, send)
            return
        if request.path == CERTS_PATH and request.method in ("GET", "HEAD") and not request.is_websocket:
            await send_certs(self.local_access.certs, request, receive, send)
            return
        response = await self._team_page(request, _body_chunks(receive))
        await response(request.scope, receive, send)

    async def _team_page(self, request: EdgeRequest, body: AsyncIterator[bytes]) -> Response:
        if request.is_websocket:
            return Response(status_code=404)
        if request.path.startswith((LOGIN_PATH, OAUTH_PATH)):
            answer = login if request.path.startswith(LOGIN_PATH) else oauth
            return await answer(request, self.local_access, body)
        pages = {
            LOGOUT_PATH: logout,
            IDENTITY_PATH: get_identity,
            CONFIGURATION_PATH: configuration,
            CERT_SIGN_PATH: refuse_certificate,
            SERVER_PATH: server_metadata,
        }
        if found := pages.get(request.path):
            return found(request, self.local_access)
        if request.path == "/" or request.path.startswith(CONTROL_PATH):
            return await control(request, self.local_access, body, self.open_requests)
        return _not_found(self.local_access, request)

    async def _serve_app(
        self, request: EdgeRequest, receive: Receive, send: Send, opened: OpenRequest, line: RequestLine | None
    ) -> None:
        app = self.local_access.app_at(request.host, request.path)
        response = _edge_response(request, self.local_access, app)
        if response is not None or app is None:
            await (response or _not_found(self.local_access, request))(request.scope, receive, send)
            return
        decision = decide(request, app, self.local_access)
        if line:
            line.decided(
                decision.policy,
                decision.caller,
                is_forwarded=isinstance(decision, Forward),
                note="" if isinstance(decision, Forward) else decision.note,
            )
        if isinstance(decision, Forward):
            opened.session = decision.session
            await self._forward(request, app, decision, receive, send)
        else:
            await build_response(decision.kind, request, app, self.local_access)(request.scope, receive, send)

    async def _forward(self, request: EdgeRequest, app: App, decision: Forward, receive: Receive, send: Send) -> None:
        ray = new_ray()
        headers = headers_for_app(
            request,
            ray=ray,
            token=decision.token,
            email=decision.email,
            country=decision.country,
            credential_header=decision.credential_header,
        )
        extra = [(b"cf-ray", ray.encode())]
        if decision.sets_cookie and decision.token:
            extra.append((b"set-cookie", service_cookie(request, self.local_access, decision.token).encode()))

        async def send_with_extra(event: Message) -> None:
            if event["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                event = {**event, "headers": [*event.get("headers", ()), *extra]}
            await send(event)

        backend = self._upstreams.get(app.tag, self.backend)
        await backend({**request.scope, "headers": headers}, receive, send_with_extra)


def _edge_response(request: EdgeRequest, local_access: LocalAccess, app: App | None) -> Response | None:
    """Return the response for a path of the edge itself, else None."""
    if request.path.startswith("/cdn-cgi/"):
        pages = {AUTHORIZED_PATH: authorized, LOGOUT_PATH: logout, IDENTITY_PATH: get_identity}
        if request.path == CLI_PATH and not request.is_websocket:
            return send_to_cli(request, app, local_access)
        found = None if request.is_websocket else pages.get(request.path)
        return found(request, local_access) if found else _not_found(local_access, request)
    if app and app.managed_oauth and request.path == SERVER_PATH:
        return server_metadata(request, local_access)
    if app and (request.path == RESOURCE_PATH or request.path.startswith(RESOURCE_PATH + "/")):
        return JSONResponse(_resource_metadata(request, local_access))
    return None


def _resource_metadata(request: EdgeRequest, local_access: LocalAccess) -> dict[str, Any]:
    return {
        "resource": f"{request.scheme}://{request.netloc}{request.path.removeprefix(RESOURCE_PATH)}",
        "protected": True,
        "team_domain": local_access.addresses.issuer.partition("://")[2],
        "authorization_servers": [local_access.addresses.issuer],
        "authentication_methods": [{"name": "cloudflared"}, {"name": "service_token"}],
        "bearer_methods_supported": ["header"],
    }


def _with_date(send: Send, clock: Clock) -> Send:
    """Return a `send` that adds `Date`, by the team's clock, to a response without one (RFC 9110 section 6.6.1)."""

    async def send_with_date(event: Message) -> None:
        if event["type"] == "http.response.start" and not any(
            name.lower() == b"date" for name, _ in event.get("headers", ())
        ):
            event = {**event, "headers": [*event.get("headers", ()), (b"date", _date(int(clock.now())))]}
        await send(event)

    return send_with_date


@lru_cache(maxsize=2)
def _date(now: int) -> bytes:
    return formatdate(now, usegmt=True).encode()


async def _body_chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        event = await receive()
        yield event.get("body", b"")
        if not event.get("more_body"):
            return


def _ambiguous_path() -> Response:
    """Return a rejection: the app could read another path than the policies do."""
    text = "Remove dot segments, backslashes and the fragment from it: servers read them differently."
    return message("The address is ambiguous", text, status=400)


def _no_team(local_access: LocalAccess) -> Response:
    """Return the response of a name that the team does not have, as Cloudflare gives it."""
    title = "Unable to find your Access organization!"
    issuer = local_access.addresses.issuer
    return message(title, f"The team is at {issuer} now.", status=404, links={"The control page": issuer})


def _unknown_host(local_access: LocalAccess, request: EdgeRequest) -> Response:
    links = {app.name: local_access.addresses.origin(app.host) + app.paths[0] for app in local_access.config.apps}
    text = f"Open {local_access.addresses.issuer} for the team, or one of the apps:"
    return message("No app has this host", text, status=404 if request.netloc else 400, links=links)


def _not_found(local_access: LocalAccess, request: EdgeRequest) -> Response:
    links = {app.name: local_access.addresses.origin(app.host) + app.paths[0] for app in local_access.config.apps}
    if request.host not in local_access.addresses.team_hosts:
        links["The control page of the team"] = local_access.addresses.issuer
    return message("Page not found", "Open one of the apps:", status=404, links=links)
