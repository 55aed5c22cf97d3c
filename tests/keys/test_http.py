"""The default fetch, over real sockets."""

import socket
import ssl
import subprocess
import sys
import threading
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access._keys import document, http
from fastapi_cloudflare_access._keys.document import Document, FetchProblem, describe, read_document
from fastapi_cloudflare_access._keys.environment import EnvironmentProblem
from fastapi_cloudflare_access._keys.http import HttpxFetch, Library, default_fetch, prepare
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Fetch
from fastapi_cloudflare_access.settings import CERTS_PATH, Settings
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

pytestmark = pytest.mark.anyio

URL = "https://acme.cloudflareaccess.com/cdn-cgi/access/certs"


async def read(fetch: Fetch) -> Document:
    return await read_document(fetch, URL, etag=None, no_cache=False)


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Library:
    """Each library that fetches."""
    chosen: Library = request.param
    return chosen


def new_fetch(library: Library, *, read_timeout: float = 3) -> HttpxFetch:
    return HttpxFetch(trust_env=False, library=library, connect_timeout=1, read_timeout=read_timeout)


async def test_the_fetch_brings_the_certs_of_a_real_server(library: Library) -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team, etag=True) as server:
        fetch = new_fetch(library)
        first = await read_document(fetch, server.origin + CERTS_PATH, etag=None, no_cache=False)
        assert first.body == team.certs_body()
        again = await read_document(fetch, server.origin + CERTS_PATH, etag=first.etag, no_cache=False)
        assert again.body is None
    assert [request.headers["accept-encoding"] for request in server.requests] == ["identity", "identity"]


async def test_a_copy_of_the_package_without_its_metadata_still_says_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert document._user_agent.__wrapped__() == "fastapi-cloudflare-access"


@pytest.mark.conformance(20)
async def test_the_default_fetch_follows_no_redirect(library: Library) -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server, CertsServer(FakeTeam("evil")) as evil:
        server.redirect(evil.origin + CERTS_PATH)
        async with new_fetch(library)(server.origin + CERTS_PATH, headers={}) as response:
            assert response.status == 302
        assert evil.fetches == 0


@pytest.mark.parametrize("fault", ["refuse", "reset", "truncate"])
async def test_a_lost_connection_is_a_connection_error(fault: str, library: Library) -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server:
        getattr(server, fault)()
        with pytest.raises(ConnectionError):
            await read_document(new_fetch(library), server.origin + CERTS_PATH, etag=None, no_cache=False)


@pytest.mark.parametrize(
    "answered",
    [b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x16\x03\x01\x00\x00"],
    ids=repr,
)
async def test_an_answer_that_is_no_http_is_not_asked_for_again(answered: bytes, library: Library) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answered)

        answering = threading.Thread(target=answer_once)
        answering.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(FetchProblem, match=r"^the response is not valid HTTP$"):
            await read_document(new_fetch(library), url, etag=None, no_cache=False)
        answering.join()


@pytest.mark.parametrize(("team", "trusts"), [("acme", True), ("http://127.0.0.1:1", False)])
def test_the_default_fetch_follows_the_settings_and_reads_no_proxy_for_a_local_team(team: str, *, trusts: bool) -> None:
    fetch = default_fetch(Settings.load(team_domain=team, audience="tag"))
    assert isinstance(fetch, HttpxFetch)
    assert fetch._trust_env is trusts
    client = fetch._client(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert client.timeout == httpx.Timeout(3, connect=2)
    assert not client.trust_env, "the environment is read by the package"


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


async def test_a_closed_port_is_a_connection_error(library: Library) -> None:
    with CertsServer(FakeTeam("acme")) as server:
        gone = server.origin
    with pytest.raises(ConnectionError) as failed:
        await read_document(new_fetch(library), gone + CERTS_PATH, etag=None, no_cache=False)
    assert describe(failed.value) == "Connection refused"


async def test_a_silent_server_is_a_timeout(library: Library) -> None:
    with CertsServer(FakeTeam("acme")) as server:
        server.hang()
        with pytest.raises(TimeoutError):
            await read_document(
                new_fetch(library, read_timeout=0.05), server.origin + CERTS_PATH, etag=None, no_cache=False
            )


@pytest.mark.conformance(20)
async def test_tls_that_fails_stays_what_it_is_and_is_described(
    monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    client_library: Any = import_module(library)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_message = "self-signed certificate"
    problem = client_library.ConnectError("remote text")
    problem.__cause__ = refused

    class Failing(client_library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: object) -> object:
            raise problem

    def client(fetch: HttpxFetch, tls: ssl.SSLContext, proxy: object) -> Any:
        return client_library.AsyncClient(transport=Failing())

    monkeypatch.setattr(HttpxFetch, "_client", client)
    with pytest.raises(client_library.ConnectError) as failed:
        await read(new_fetch(library))
    assert describe(failed.value) == "TLS failed: self-signed certificate"


@pytest.mark.conformance(20)
async def test_tls_is_verified_with_the_certificates_of_the_machine(library: Library) -> None:
    tls = http.load_tls(encrypted=True, trust_env=False, library=library)
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
    if library == "httpx":  # some versions of httpx2 leave the certificates to the operating system
        assert tls.get_ca_certs()


async def test_a_wrong_ssl_cert_file_is_a_failed_fetch_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Library
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    fetch = HttpxFetch(trust_env=True, library=library, connect_timeout=1, read_timeout=1)
    with pytest.raises(EnvironmentProblem, match="SSL_CERT_FILE"):
        await read(fetch)
    await prepare(fetch, URL)  # the error is that of the fetch


async def test_the_default_fetch_can_be_prepared(library: Library) -> None:
    fetch = HttpxFetch(trust_env=False, library=library, connect_timeout=1, read_timeout=3)
    await prepare(fetch, URL)
    prepared = fetch._tls
    assert prepared is not None
    with pytest.raises(ConnectionError):
        await read_document(fetch, "http://127.0.0.1:1/", etag=None, no_cache=False)
    assert fetch._tls is prepared


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY", "all_proxy"])
async def test_the_environment_is_believed_only_where_asked_for(
    variable: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CertsServer(FakeTeam("acme")) as proxy, CertsServer(FakeTeam("acme")) as server:
        monkeypatch.setenv(variable, proxy.origin)
        async with new_fetch(library)(server.origin + CERTS_PATH, headers={}):
            pass
        assert (server.fetches, proxy.fetches) == (1, 0)


@pytest.mark.parametrize("kind", ["UnsupportedProtocol", "ProxyError"])
def test_an_error_that_has_no_words_of_its_own_stays_what_it_is(kind: str, library: Library) -> None:
    client_library = import_module(library)
    problem: Exception = getattr(client_library, kind)("secret")
    assert http._translated(problem, None, client_library) is None
    assert "secret" not in describe(problem)


@pytest.mark.conformance(57)
def test_neither_the_package_nor_a_key_source_loads_httpx() -> None:
    code = (
        "import sys; from fastapi_cloudflare_access import CloudflareAccess; "
        "CloudflareAccess(team_domain='acme', audience='tag'); sys.exit('httpx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
