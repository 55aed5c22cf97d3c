"""The bounds that hold for every fetch, and what the default one adds."""

import errno
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access._keys import http
from fastapi_cloudflare_access._keys.http import (
    Document,
    FetchProblem,
    HttpxFetch,
    default_fetch,
    describe,
    read_document,
)
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Fetch, FetchResponse
from fastapi_cloudflare_access.settings import CERTS_PATH, Settings
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

pytestmark = pytest.mark.anyio

URL = "https://acme.cloudflareaccess.com/cdn-cgi/access/certs"


def answer(
    *pieces: bytes, status: int = 200, headers: Mapping[str, str] | None = None, seen: dict[str, str] | None = None
) -> Fetch:
    """A fetch that brings this answer."""

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        if seen is not None:
            seen.update(headers)

        async def body() -> AsyncGenerator[bytes]:
            for piece in pieces:
                yield piece

        yield FetchResponse(status, answered, body())

    answered = dict(headers or {})
    return fetch


async def read(fetch: Fetch, *, etag: str | None = None, no_cache: bool = False) -> Document:
    with patch.object(http, "MAX_DOCUMENT", 100):
        return await read_document(fetch, URL, etag=etag, no_cache=no_cache)


async def test_a_good_answer_is_read_piece_by_piece() -> None:
    document = await read(answer(b'{"a"', b":1}", headers={"etag": '"v1"', "cache-control": "max-age=300"}))
    assert document == Document(b'{"a":1}', '"v1"', 300.0)


async def test_who_asks_is_said_and_nothing_encoded_is_asked_for() -> None:
    seen: dict[str, str] = {}
    await read(answer(b"{}", seen=seen))
    assert re.fullmatch(r"fastapi-cloudflare-access/\d+\.\d+\.\d+\S*", seen.pop("User-Agent"))
    assert seen == {"Accept": "application/json", "Accept-Encoding": "identity"}


async def test_a_forced_fetch_passes_caches_by_and_a_conditional_one_names_what_it_has() -> None:
    seen: dict[str, str] = {}
    await read(answer(b"{}", seen=seen), etag='"v1"', no_cache=True)
    assert seen["Cache-Control"] == "no-cache"
    assert seen["If-None-Match"] == '"v1"'


async def test_304_is_the_document_we_have() -> None:
    fetch = answer(status=304, headers={"cache-control": "max-age=90"})
    assert await read(fetch, etag='"v1"') == Document(None, '"v1"', 90.0)


async def test_304_without_having_asked_for_it_is_refused() -> None:
    with pytest.raises(FetchProblem, match="304"):
        await read(answer(status=304))


@pytest.mark.conformance(19, 20)
@pytest.mark.parametrize("status", [100, 201, 204, 206, 301, 302, 307, 400, 403, 404, 429, 500, 503, 520])
async def test_only_200_is_taken(status: int) -> None:
    with pytest.raises(FetchProblem, match=str(status)):
        await read(answer(b"{}", status=status))


async def test_a_redirect_is_called_one() -> None:
    with pytest.raises(FetchProblem, match="redirects are not followed"):
        await read(answer(status=302, headers={"location": "https://evil.example/"}))


@pytest.mark.conformance(19)
@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", ""])
async def test_an_encoded_answer_is_refused(encoding: str) -> None:
    with pytest.raises(FetchProblem, match="encoded"):
        await read(answer(b"{}", headers={"content-encoding": encoding}))


async def test_identity_is_no_encoding() -> None:
    assert (await read(answer(b"{}", headers={"content-encoding": "Identity"}))).body == b"{}"


@pytest.mark.parametrize("length", ["101", "9" * 18, "9" * 5000, "-1", "1e2", "", "\u0661"])
async def test_an_announced_length_that_is_too_much_or_no_number_is_refused_before_reading(length: str) -> None:
    with pytest.raises(FetchProblem, match="longer than 100"):
        await read(answer(b"{}", headers={"content-length": length}))


@pytest.mark.conformance(19, 20)
async def test_a_body_is_refused_as_soon_as_it_is_longer_than_allowed() -> None:
    pulled: list[int] = []

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        async def body() -> AsyncGenerator[bytes]:
            for number in range(1000):
                pulled.append(number)
                yield bytes(10)

        yield FetchResponse(200, {"content-length": "20"}, body())

    with pytest.raises(FetchProblem, match="longer than 100"):
        await read(fetch)
    assert len(pulled) == 11


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert len((await read(answer(bytes(60), bytes(40)))).body or b"") == 100


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"cache-control": "public, max-age=120"}, 120),
        ({"cache-control": 'Max-Age = "120", public'}, 120),
        ({"cache-control": "max-age=120", "age": "50"}, 70),
        ({"cache-control": "max-age=120", "age": "500"}, 0),
        ({"cache-control": "max-age=120", "age": "soon"}, 120),
        ({"cache-control": "max-age=0"}, None),
        ({"cache-control": "max-age=-5"}, None),
        ({"cache-control": "max-age=1e3"}, None),
        ({"cache-control": "max-age=" + "9" * 30}, None),
        ({"cache-control": "s-maxage=60"}, None),
        ({"cache-control": "x-max-age=60"}, None),
        ({"cache-control": "max-age=60, no-store"}, None),
        ({"cache-control": "no-cache=x, max-age=60"}, None),
        ({"cache-control": " " * 5000 + "max-age=60"}, None),
    ],
)
async def test_how_long_an_answer_is_fresh(headers: dict[str, str], expected: float | None) -> None:
    assert (await read(answer(b"{}", headers=headers))).max_age == expected


@pytest.mark.parametrize(
    ("etag", "kept"),
    [
        ('"v1"', True),
        ('W/"v1"', True),
        ('""', True),
        ("v1", False),
        ('"a\r\nX: y"', False),
        ('"ü"', False),
        (f'"{"x" * 300}"', False),
    ],
    ids=str,
)
async def test_only_a_well_formed_etag_is_kept(etag: str, *, kept: bool) -> None:
    assert (await read(answer(b"{}", headers={"etag": etag}))).etag == (etag if kept else None)


# The default fetch


def httpx_fetch(*, read_timeout: float = 3) -> HttpxFetch:
    return HttpxFetch(trust_env=False, connect_timeout=1, read_timeout=read_timeout)


async def test_the_default_fetch_brings_the_certs_of_a_real_server() -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team, etag=True) as server:
        fetch = httpx_fetch()
        first = await read_document(fetch, server.origin + CERTS_PATH, etag=None, no_cache=False)
        assert first.body == team.certs_body()
        again = await read_document(fetch, server.origin + CERTS_PATH, etag=first.etag, no_cache=False)
        assert again.body is None
    assert [request.headers["accept-encoding"] for request in server.requests] == ["identity", "identity"]


async def test_a_copy_of_the_package_without_its_metadata_still_says_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert http._user_agent.__wrapped__() == "fastapi-cloudflare-access"


@pytest.mark.conformance(20)
async def test_the_default_fetch_follows_no_redirect() -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server, CertsServer(FakeTeam("evil")) as evil:
        server.redirect(evil.origin + CERTS_PATH)
        async with httpx_fetch()(server.origin + CERTS_PATH, headers={}) as response:
            assert response.status == 302
        assert evil.fetches == 0


@pytest.mark.parametrize("fault", ["refuse", "reset", "truncate"])
async def test_a_lost_connection_is_a_connection_error(fault: str) -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server:
        getattr(server, fault)()
        with pytest.raises(ConnectionError):
            await read_document(httpx_fetch(), server.origin + CERTS_PATH, etag=None, no_cache=False)


@pytest.mark.parametrize(
    "answered",
    [b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x16\x03\x01\x00\x00"],
    ids=repr,
)
async def test_an_answer_that_is_no_http_is_not_asked_for_again(answered: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answered)

        answering = threading.Thread(target=answer_once)
        answering.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(FetchProblem, match=r"^the answer is no valid HTTP$"):
            await read_document(httpx_fetch(), url, etag=None, no_cache=False)
        answering.join()


@pytest.mark.parametrize(("team", "trusts"), [("acme", True), ("http://127.0.0.1:1", False)])
def test_the_default_fetch_follows_the_settings_and_reads_no_proxy_for_a_local_team(team: str, *, trusts: bool) -> None:
    fetch = default_fetch(Settings.load(team_domain=team, audience="tag"))
    assert isinstance(fetch, HttpxFetch)
    assert fetch._trust_env is trusts
    client = fetch._client(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert client.timeout == httpx.Timeout(3, connect=2)
    assert client.trust_env is trusts


async def test_many_key_sources_for_one_team_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """Such as a `CloudflareAccess` for each request."""
    with CertsServer(FakeTeam("acme")) as server:
        for _ in range(http.MANY_SOURCES + 2):
            await KeySource(Settings.load(team_domain=server.origin, audience="tag")).refresh()
    warned = [record.getMessage() for record in caplog.records if "make the object once" in record.getMessage()]
    assert len(warned) == 1
    assert "/cdn-cgi/access/certs" in warned[0]


def test_a_key_source_has_the_default_fetch() -> None:
    keys = KeySource(Settings.load(team_domain="http://127.0.0.1:1", audience="tag"))
    fetch = keys._fetcher._fetch
    assert isinstance(fetch, HttpxFetch)
    assert not fetch._trust_env


async def test_nobody_listening_is_a_connection_error() -> None:
    with CertsServer(FakeTeam("acme")) as server:
        gone = server.origin
    with pytest.raises(ConnectionError) as failed:
        await read_document(httpx_fetch(), gone + CERTS_PATH, etag=None, no_cache=False)
    assert describe(failed.value) == "Connection refused"


async def test_a_silent_server_is_a_timeout() -> None:
    with CertsServer(FakeTeam("acme")) as server:
        server.hang()
        with pytest.raises(TimeoutError):
            await read_document(httpx_fetch(read_timeout=0.05), server.origin + CERTS_PATH, etag=None, no_cache=False)


@pytest.mark.conformance(20)
async def test_tls_that_fails_stays_what_it_is_and_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_message = "self-signed certificate"
    problem = httpx.ConnectError("remote text")
    problem.__cause__ = refused

    class Failing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise problem

    def client(fetch: HttpxFetch, tls: ssl.SSLContext) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=Failing())

    monkeypatch.setattr(HttpxFetch, "_client", client)
    with pytest.raises(httpx.ConnectError) as failed:
        await read(httpx_fetch())
    assert describe(failed.value) == "TLS failed: self-signed certificate"


@pytest.mark.conformance(20)
async def test_tls_is_verified_with_the_certificates_of_the_machine() -> None:
    fetch = httpx_fetch()
    fetch._tls = http._load_tls(encrypted=True, trust_env=False)
    assert fetch._tls.verify_mode is ssl.CERT_REQUIRED
    assert fetch._tls.check_hostname
    assert fetch._tls.get_ca_certs()


async def test_a_wrong_ssl_cert_file_is_a_failed_fetch_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    fetch = HttpxFetch(trust_env=True, connect_timeout=1, read_timeout=1)
    with pytest.raises(FetchProblem, match="SSL_CERT_FILE"):
        await read(fetch)


async def test_the_environment_is_believed_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with CertsServer(FakeTeam("acme")) as proxy, CertsServer(FakeTeam("acme")) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        async with httpx_fetch()(server.origin + CERTS_PATH, headers={}):
            pass
        assert (server.fetches, proxy.fetches) == (1, 0)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (FetchProblem("an answer with HTTP status 503"), "an answer with HTTP status 503"),
        (TimeoutError("secret"), "no answer in time"),
        (ConnectionError("secret"), "the connection failed or was lost"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "secret"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "secret"), "the host name was not found"),
        (ssl.SSLError("secret"), "TLS failed: SSLError"),
        (ValueError("secret"), "the fetch failed with ValueError"),
        (ExceptionGroup("secret", [ValueError("secret")]), "the fetch failed with ExceptionGroup"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_cause_is_described_without_a_word_from_outside(problem: Exception, words: str) -> None:
    assert describe(problem) == words


async def test_a_chain_of_causes_that_bites_its_tail_is_described() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert describe(first) == "the fetch failed with ValueError"


@pytest.mark.conformance(57)
def test_neither_the_package_nor_a_key_source_loads_httpx() -> None:
    code = (
        "import sys; from fastapi_cloudflare_access import CloudflareAccess; "
        "CloudflareAccess(team_domain='acme', audience='tag'); sys.exit('httpx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
