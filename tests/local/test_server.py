"""The sockets on the loopback, and the environment of the app."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from support.local_rig import make_local_access
from support.upstreams import serving
from websockets.sync.client import connect

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import run_local_access, server
from fastapi_cloudflare_access.local.config import App, Config, Policy, Team
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.local_access import Addresses
from fastapi_cloudflare_access.local.server import (
    Listeners,
    LocalServer,
    app_environment,
    bind,
    environment,
    is_loopback,
    port_of,
)
from fastapi_cloudflare_access.local.tls import TlsFiles

BYPASS = Policy(decision="bypass", everyone=True)


def test_the_loopback_gets_ipv4_and_ipv6_sockets() -> None:
    listeners = bind("127.0.0.1", 0)
    try:
        assert {listener.getsockname()[0] for listener in listeners} <= {"127.0.0.1", "::1"}
        assert {listener.getsockname()[1] for listener in listeners} == {port_of(listeners)}
    finally:
        for listener in listeners:
            listener.close()


def test_only_loopback_hosts_are_loopback() -> None:
    hosts = ("localhost", "127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "192.168.0.1", "example.com")
    assert [host for host in hosts if is_loopback(host)] == ["localhost", "127.0.0.1", "127.0.0.2", "::1"]


class Network:
    """Fake addresses with a free port, or with errors."""

    def __init__(self) -> None:
        self.problems: dict[str, list[int]] = {}
        self.listeners: list[socket.socket] = []

    def listen(self, host: str, port: int) -> socket.socket:
        if problems := self.problems.get(host):
            raise OSError(problems.pop(), "for a reason")
        self.listeners.append(socket.create_server(("127.0.0.1", 0)))
        return self.listeners[-1]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    network = Network()
    monkeypatch.setattr(server, "_listen", network.listen)
    yield network
    for listener in network.listeners:
        listener.close()


@pytest.mark.parametrize("absent", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_computer_without_ipv6_gets_only_ipv4(network: Network, absent: int) -> None:
    network.problems["::1"] = [absent]
    assert len(bind("localhost", 8787)) == 1


def test_a_port_that_is_taken_for_ipv6_is_reported_and_closed(network: Network) -> None:
    network.problems["::1"] = [errno.EADDRINUSE]
    with pytest.raises(ConfigurationError, match="cannot listen on port 8787 of ::1"):
        bind("localhost", 8787)
    assert [listener.fileno() for listener in network.listeners] == [-1]


def test_a_free_port_is_free_for_ipv4_and_ipv6(network: Network) -> None:
    network.problems["::1"] = [errno.EADDRINUSE, errno.EADDRINUSE]
    assert bind("localhost", 0) == network.listeners[-2:]
    network.problems["::1"] = [errno.EADDRINUSE] * 100
    with pytest.raises(ConfigurationError):
        bind("localhost", 0)


def test_another_loopback_address_is_added(network: Network) -> None:
    assert len(bind("127.0.0.2", 0)) == 3


def test_sockets_name_the_protocol_so_that_nagle_is_off() -> None:
    listeners = bind("127.0.0.1", 0)
    assert {listener.proto for listener in listeners} == {socket.IPPROTO_TCP}
    for listener in listeners:
        listener.close()


def test_another_address_gets_one_socket() -> None:
    (listener,) = bind("0.0.0.0", 0)
    assert listener.getsockname()[0] == "0.0.0.0"
    listener.close()


def test_a_taken_port_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            ConfigurationError,
            match=f"cannot listen on port {port} of 127.0.0.1: .*; stop what uses it, or add --port {port + 1}$",
        ):
            bind("127.0.0.1", port)
        with pytest.raises(ConfigurationError, match=f"or add --tls-port {port + 1}$"):
            Listeners.open("127.0.0.1", 0, port)


def test_the_first_port_is_closed_if_the_second_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(ConfigurationError):
            Listeners.open("127.0.0.1", port, listener.getsockname()[1])
        for again in bind("127.0.0.1", port):
            again.close()


@pytest.mark.parametrize(
    ("fault", "ending"), [("refuse", "without sending a response"), ("reset", "without sending complete")]
)
def test_a_closed_connection_of_the_certs_logs_no_error(
    fault: str, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    with run_local_access() as local:
        local.control("certs", fault=fault)
        with pytest.raises(httpx.RemoteProtocolError, match=ending):
            httpx.get(local.team_domain + "/cdn-cgi/access/certs", trust_env=False)
        local.control("certs", fault="none")
        assert httpx.get(local.team_domain + "/cdn-cgi/access/certs", trust_env=False).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_listeners_return_their_addresses() -> None:
    listeners = Listeners.open("127.0.0.1", 0, 0)
    addresses = listeners.addresses(Config(team=Team(domain="acme.cloudflareaccess.com")))
    assert addresses == Addresses(port_of(listeners.plain), port_of(listeners.encrypted), "acme.cloudflareaccess.com")
    listeners.close()


def test_the_environment_has_the_team_and_the_tags_of_the_app() -> None:
    own, other = App(name="own"), App(name="other", host="other.localhost", upstream="http://127.0.0.1:1")
    settings = app_environment(make_local_access(own, other))
    assert settings == {"CF_ACCESS_TEAM_DOMAIN": "http://127.0.0.1:8787", "CF_ACCESS_AUDIENCE": own.tag}
    assert app_environment(make_local_access(other))["CF_ACCESS_AUDIENCE"] == other.tag


def test_the_environment_names_no_tag_of_a_bypassed_app() -> None:
    own, public = App(name="own"), App(name="public", paths=("/public",), policies=(BYPASS,))
    assert app_environment(make_local_access(own, public))["CF_ACCESS_AUDIENCE"] == own.tag
    assert app_environment(make_local_access(public))["CF_ACCESS_AUDIENCE"] == public.tag


def test_the_environment_of_an_upstream_has_the_tags_of_its_apps() -> None:
    own, other = App(name="own"), App(name="other", host="other.localhost", upstream="http://127.0.0.1:1")
    found = app_environment(make_local_access(own, other), upstream="http://127.0.0.1:1")
    assert found["CF_ACCESS_AUDIENCE"] == other.tag


def test_the_environment_has_the_ca_file_for_a_real_team_domain() -> None:
    tls = TlsFiles(Path("ca.pem"), Path("server.pem"))
    local_access = make_local_access(addresses=Addresses(80, 443, "acme.cloudflareaccess.com"))
    found = app_environment(local_access, tls)
    assert {found[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")} == {"ca.pem"}
    assert "SSL_CERT_FILE" not in app_environment(make_local_access(), tls)


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_A", "before")
    monkeypatch.delenv("CF_B", raising=False)
    with environment({"CF_A": "now", "CF_B": "now"}):
        assert (os.environ["CF_A"], os.environ["CF_B"]) == ("now", "now")
    assert os.environ["CF_A"] == "before"
    assert "CF_B" not in os.environ


class Endless:
    """An app with a stream and a WebSocket that never end, and ignore that the client has gone."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            self.events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.Event().wait()


@pytest.mark.parametrize("place", ["process", "upstream"])
def test_open_streams_do_not_delay_the_stop_and_log_no_error(
    place: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SHUTDOWN_GRACE", 600)  # uvicorn's own end of open requests would exceed the limit
    app = Endless()
    with serving(app) as origin, ExitStack() as clients:
        backend: dict[str, Any] = {"app": app} if place == "process" else {"upstream": origin}
        with run_local_access(**backend) as local:
            browser = clients.enter_context(httpx.Client(headers=local.service_headers(), trust_env=False))
            response = clients.enter_context(browser.stream("GET", local.url()))
            assert next(response.iter_raw()) == b"first"
            address = local.url().replace("http", "ws", 1)
            clients.enter_context(connect(address, additional_headers=local.service_headers(), proxy=None))
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == []
    assert app.events == (["lifespan.shutdown"] if place == "process" else [])


@pytest.mark.anyio
async def test_a_second_signal_does_not_wait_for_the_app() -> None:
    main = server._MainServer(uvicorn.Config(lambda: None), Edge(make_local_access()))
    main.force_exit = True
    await main._unless_forced(asyncio.sleep(600))


def test_a_signal_before_the_start_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """A task of uvicorn's for the lifespan would log a traceback when the loop cancels it."""
    edge = Edge(make_local_access())
    listeners = Listeners.open("127.0.0.1", 0, None)
    local_server = LocalServer(edge, listeners)

    async def interrupted() -> None:
        main = asyncio.ensure_future(local_server.serve())
        await asyncio.sleep(0)
        main.cancel()
        with suppress(asyncio.CancelledError):
            await main
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(interrupted())
    listeners.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
