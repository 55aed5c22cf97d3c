"""The reverse proxy streams in both directions, and responds with 502 if the app does not answer."""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
import trustme
from starlette.types import Message, Receive, Scope, Send
from support.local_rig import make_request
from support.upstreams import raw_server, serving
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import RunningAccess, run_local_access
from fastapi_cloudflare_access.local.config import App, Config
from fastapi_cloudflare_access.local.edge_request import end_to_end
from fastapi_cloudflare_access.local.upstream import Upstream


class Echo:
    """An app that returns the request; some paths behave differently."""

    def __init__(self) -> None:
        self.was_cancelled = False
        self.bodies: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/endless":
            await self._endless(receive, send)
            return
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            self.bodies.append(len(event.get("body", b"")))
            if not event.get("more_body"):
                break
        lines = [f"{scope['method']} {scope['raw_path'].decode()}?{scope['query_string'].decode()}".encode()]
        lines += [name + b": " + value for name, value in scope["headers"]]
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"\n".join([*lines, b"", body])})

    async def _endless(self, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.was_cancelled = True


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def local(echo: Echo) -> Iterator[RunningAccess]:
    with serving(echo) as origin, run_local_access(upstream=origin) as running:
        yield running


def client(local: RunningAccess) -> httpx.Client:
    return httpx.Client(base_url=local.url(), headers=local.service_headers(), trust_env=False, timeout=10)


def test_a_request_arrives_as_it_was_sent(local: RunningAccess) -> None:
    with client(local) as browser:
        response = browser.post(
            "/a%2Fb/%C3%BC?x=%20&y", content=b"body", headers={"x-own": "1", "expect": "100-continue"}
        )
    lines = response.text.splitlines()
    assert lines[0] == "POST /a%2Fb/%C3%BC?x=%20&y"
    assert lines[-1] == "body"
    assert "x-own: 1" in lines
    assert f"host: localhost:{local.local_access.addresses.port}" in lines
    assert any(line.startswith("cf-access-jwt-assertion: ") for line in lines)
    assert not any(line.startswith(("cf-access-client", "expect", "transfer-encoding")) for line in lines)
    assert "content-length: 4" in lines
    assert sum(line.startswith("user-agent:") for line in lines) == 1


def test_a_connection_header_does_not_remove_headers_of_the_edge(local: RunningAccess) -> None:
    names = "close, Host, Content-Length, Cookie, Cf-Access-Jwt-Assertion, Cf-Connecting-IP, X-Forwarded-For, X-Hop"
    with client(local) as browser:
        response = browser.post("/", content=b"body", headers={"connection": names, "x-hop": "1"})
    names_seen = {line.partition(":")[0] for line in response.text.splitlines()}
    assert names_seen >= {"host", "content-length", "cookie", "cf-access-jwt-assertion", "cf-connecting-ip"}
    assert "x-hop" not in names_seen
    assert response.text.endswith("\nbody")


@pytest.mark.anyio
async def test_a_body_longer_than_its_content_length_gets_502() -> None:
    async def listen(reader: Any, writer: Any) -> None:
        await reader.read()

    with raw_server(listen) as origin:
        upstream = Upstream(origin)
        await upstream.start()
        sent: list[Message] = []

        asked = asyncio.Event()

        async def receive() -> Message:
            if asked.is_set():
                await asyncio.Event().wait()
            asked.set()
            return {"type": "http.request", "body": b"xx"}

        async def send(event: Message) -> None:
            sent.append(event)

        await upstream(make_request(method="POST", headers={"content-length": "1"}).scope, receive, send)
        await upstream.stop()
        assert sent[0]["status"] == 502


def test_a_response_arrives_as_the_app_sent_it(local: RunningAccess) -> None:
    with client(local) as browser:
        response = browser.get("/")
    assert response.status_code == 201
    cookies = [line.partition("=")[0] for line in response.headers.get_list("set-cookie")]
    assert cookies == ["a", "b", "CF_Authorization"]
    assert response.headers["cf-ray"]


def test_a_body_without_a_length_is_sent_in_chunks(local: RunningAccess, echo: Echo) -> None:
    with client(local) as browser:
        response = browser.post("/", content=iter([b"a" * 70_000, b"b" * 70_000]))
    assert response.text.endswith("a" * 70_000 + "b" * 70_000)
    assert max(echo.bodies) < 140_000


def test_events_stream_and_the_app_receives_the_disconnect(local: RunningAccess, echo: Echo) -> None:
    with client(local) as browser, browser.stream("GET", "/endless") as response:
        assert next(response.iter_text()) == "data: 1\n\n"
    for _ in range(100):
        if echo.was_cancelled:
            break
        httpx.get(local.team_domain + "/control/api/state", trust_env=False)
    assert echo.was_cancelled


def test_an_app_that_does_not_listen_gets_502() -> None:
    with run_local_access(upstream="http://127.0.0.1:9") as running, client(running) as browser:
        response = browser.get("/")
        assert response.status_code == 502
        assert "http://127.0.0.1:9" in response.text


def test_an_incomplete_response_closes_the_connection() -> None:
    async def half(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await writer.drain()

    with (
        raw_server(half) as origin,
        run_local_access(upstream=origin) as running,
        client(running) as browser,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        browser.get("/")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_response_without_a_body_can_have_a_content_length(status: str, caplog: pytest.LogCaptureFixture) -> None:
    async def short(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 10\r\netag: x\r\n\r\n".encode())
        await writer.drain()

    with raw_server(short) as origin, run_local_access(upstream=origin) as running, client(running) as browser:
        response = browser.get("/")
    assert (f"{response.status_code} {response.reason_phrase}", response.headers["etag"]) == (status, "x")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_connect_is_rejected(local: RunningAccess, caplog: pytest.LogCaptureFixture) -> None:
    with client(local) as browser:
        assert browser.request("CONNECT", "/").status_code == 405
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.anyio
async def test_a_client_that_disconnects_while_it_sends_is_not_an_error() -> None:
    async def listen(reader: Any, writer: Any) -> None:
        await reader.read()

    with raw_server(listen) as origin:
        upstream = Upstream(origin)
        await upstream.start()
        events: Iterator[Message] = iter(
            [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
        )
        sent: list[Message] = []

        async def receive() -> Message:
            await asyncio.sleep(0)
            return next(events)

        async def send(event: Message) -> None:
            sent.append(event)

        request = make_request(method="POST", headers={"content-length": "10"})
        await asyncio.wait_for(upstream(request.scope, receive, send), 10)
        await upstream.stop()
        assert sent == []


@pytest.mark.anyio
async def test_an_upstream_can_stop_before_it_starts() -> None:
    await Upstream("http://127.0.0.1:1").stop()


def test_an_invalid_origin_is_rejected_at_once() -> None:
    with pytest.raises(ConfigurationError, match="an upstream must be an origin"):
        Upstream("http://127.0.0.1:8000/api")


def test_hop_by_hop_headers_are_removed() -> None:
    headers = [
        (b"Connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"te", b"trailers"),
        (b"x-own", b"2"),
    ]
    assert end_to_end(headers) == [(b"x-own", b"2")]


def test_an_answer_before_the_end_of_the_body_reaches_the_client() -> None:
    """The app refuses an upload and closes the connection, while the client still sends."""

    async def refuse(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(1000)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
        await writer.drain()

    with raw_server(refuse) as origin, run_local_access(upstream=origin) as running, client(running) as browser:
        for _ in range(10):
            response = browser.post("/", content=iter([b"x" * 100_000] * 50))
            assert (response.status_code, response.text) == (413, "big")


@pytest.mark.anyio
async def test_an_incomplete_response_is_an_error_if_the_server_cannot_close_the_connection() -> None:
    async def half(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await writer.drain()

    async def send(event: Message) -> None: ...

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    with raw_server(half) as origin:
        upstream = Upstream(origin)
        await upstream.start()
        with pytest.raises(httpcore.RemoteProtocolError):
            await upstream(make_request().scope, receive, send)
        await upstream.stop()


def test_an_app_that_closes_without_an_answer_is_not_called_stopped(caplog: pytest.LogCaptureFixture) -> None:
    async def vanish(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")

    with raw_server(vanish) as origin, run_local_access(upstream=origin) as running, client(running) as browser:
        response = browser.post("/", content=iter([b"x"] * 3))
    assert response.status_code == 502
    assert "the app did not answer completely" in response.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    ca, file = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    return ca, file


@contextmanager
def https_server(ca: trustme.CA) -> Iterator[str]:
    """Serve 200 over TLS, with a certificate that only `ca` vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)

    async def answer(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()

    with raw_server(answer, tls=context) as origin:
        yield origin.replace("http", "https", 1)


def test_an_upstream_with_a_foreign_certificate_is_explained(
    authority: tuple[trustme.CA, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with https_server(authority[0]) as origin, run_local_access(upstream=origin) as running, client(running) as browser:
        response = browser.get("/")
        with pytest.raises(InvalidStatus) as refused:
            connect(running.url().replace("http", "ws", 1), additional_headers=running.service_headers(), proxy=None)
    for text in (response.text, bytes(refused.value.response.body or b"").decode()):
        assert "the certificate of the app is not trusted" in text
        assert "--upstream-ca" in text
    assert "its certificate is not trusted" in caplog.text


def test_an_upstream_can_have_an_authority_of_its_own(authority: tuple[trustme.CA, Path]) -> None:
    ca, file = authority
    with https_server(ca) as origin:
        config = Config(apps=(App(name="app", upstream=origin, upstream_ca=str(file)),))
        with run_local_access(config=config) as running, client(running) as browser:
            assert browser.get("/").text == "ok"
            assert browser.post("/", content=iter([b"x"] * 3)).text == "ok"


def test_a_file_without_a_certificate_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match="is not a file with a certificate"):
        Upstream("https://127.0.0.1:1", ca=str(tmp_path / "ca.pem"))
