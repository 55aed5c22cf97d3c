"""The proxy and the CA certificates of the environment, through a real CONNECT proxy to a real TLS server.

Each row of the table is one surrounding. The keys are fetched, directly or through the proxy, or the error names the
variable; the doctor's checks agree with the fetch in every row.
"""

import os
import re
import select
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from fastapi_cloudflare_access._keys import environment
from fastapi_cloudflare_access._keys.document import describe, read_document
from fastapi_cloudflare_access._keys.environment import EnvironmentProblem, Proxy, excluding_entry, proxy_for
from fastapi_cloudflare_access._keys.http import HttpxFetch, Library
from fastapi_cloudflare_access.cli.doctor import check_ca, check_proxy
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FakeTeam

pytestmark = pytest.mark.anyio

HOST = "acme.cloudflareaccess.com"
SETTINGS = Settings.load(team_domain="acme", audience="a" * 64)
URL = SETTINGS.certs_url
BODY = FakeTeam("acme").certs_body()


class Certs(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Discard the log message."""


@dataclass
class Network:
    """A TLS server with the team's name, and a proxy in front of it.

    Attributes:
        port: The port of the TLS server.
        proxy: Host and port of the proxy, which asks for the user name `ada` and the password `p@ss` if they are sent.
        tunnels: The `Proxy-Authorization` of each tunnel that was opened.
        files: Paths for the certificates.
    """

    port: int = 0
    proxy: str = ""
    tunnels: list[str] = field(default_factory=list[str])
    files: dict[str, str] = field(default_factory=dict[str, str])


class ConnectProxy(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = self.rfile.readline().decode()
        headers = {}
        while line := self.rfile.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        network: Network = getattr(self.server, "network")  # noqa: B009 - of this test
        assert request.startswith(f"CONNECT {HOST}:443 ")
        credentials = headers.get("proxy-authorization", "")
        if credentials and credentials != "Basic YWRhOnBAc3M=":
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        network.tunnels.append(credentials)
        with socket.create_connection(("127.0.0.1", network.port)) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            with suppress(OSError):
                self.relay(upstream)

    def relay(self, upstream: socket.socket) -> None:
        pairs = {self.connection: upstream, upstream: self.connection}
        while True:
            for ready in select.select([*pairs], [], [])[0]:
                if not (data := ready.recv(65536)):
                    return
                pairs[ready].sendall(data)


class ProxyServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    network: Network

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Discard errors of dropped connections."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Generator[Network]:
    folder = tmp_path_factory.mktemp("ca")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    (folder / "empty.pem").touch()
    (folder / "text.pem").write_text("no certificate")
    (folder / "hashed").mkdir()
    if shutil.which("openssl"):
        (folder / "hashed" / f"{openssl_hash(folder / 'ca.pem')}.0").write_bytes(ca.cert_pem.bytes())
    (folder / "plain").mkdir()
    ca.cert_pem.write_to_path(str(folder / "plain" / "ca.pem"))
    found = Network(files={path.name.partition(".")[0]: str(path) for path in folder.iterdir()})
    found.files["missing"] = str(folder / "missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Certs)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    with server, ProxyServer(("127.0.0.1", 0), ConnectProxy) as proxy:
        proxy.network, found.proxy = found, f"127.0.0.1:{proxy.server_address[1]}"
        threads = [threading.Thread(target=one.serve_forever, args=(0.05,)) for one in (server, proxy)]
        for thread in threads:
            thread.start()
        yield found
        server.shutdown()
        proxy.shutdown()
        for thread in threads:
            thread.join()


def openssl_hash(path: Path) -> str:
    """Return the subject hash that OpenSSL looks certificates up by in a folder."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(environment, "getproxies", dict)
    monkeypatch.setattr(environment, "find_spec", lambda name: None)


@pytest.fixture
def resolved(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to the TLS server instead of port 443 of the team's host."""
    connect = anyio.connect_tcp

    async def connect_tcp(remote_host: str, remote_port: int, **options: Any) -> Any:
        if remote_host == HOST:
            remote_host, remote_port = "127.0.0.1", network.port
        return await connect(remote_host, remote_port, **options)

    monkeypatch.setattr(anyio, "connect_tcp", connect_tcp)


DIRECT, THROUGH = "directly", "through the proxy"

SURROUNDINGS: list[tuple[str, Mapping[str, str], str]] = [
    ("no variable", {}, DIRECT),
    ("HTTPS_PROXY", {"HTTPS_PROXY": "http://{proxy}"}, THROUGH),
    ("https_proxy", {"https_proxy": "http://{proxy}"}, THROUGH),
    ("ALL_PROXY", {"ALL_PROXY": "http://{proxy}"}, THROUGH),
    ("all_proxy", {"all_proxy": "http://{proxy}"}, THROUGH),
    ("HTTP_PROXY is not for https", {"HTTP_PROXY": "http://{proxy}"}, DIRECT),
    ("http_proxy is not for https", {"http_proxy": "http://{proxy}"}, DIRECT),
    ("an unusable HTTP_PROXY does not matter", {"HTTP_PROXY": "ftp://x"}, DIRECT),
    ("no scheme", {"HTTPS_PROXY": "{proxy}"}, THROUGH),
    ("a slash at the end", {"HTTPS_PROXY": "http://{proxy}/"}, THROUGH),
    ("blanks around it", {"HTTPS_PROXY": "  http://{proxy}\n"}, THROUGH),
    ("an upper-case scheme", {"HTTPS_PROXY": "HTTP://{proxy}"}, THROUGH),
    ("user and password", {"HTTPS_PROXY": "http://ada:p%40ss@{proxy}"}, THROUGH),
    ("a wrong password", {"HTTPS_PROXY": "http://ada:no@{proxy}"}, "the proxy of HTTPS_PROXY refuses .* 407"),
    ("an empty variable", {"HTTPS_PROXY": ""}, DIRECT),
    ("a blank variable", {"HTTPS_PROXY": "  "}, DIRECT),
    ("an empty lower-case variable wins", {"https_proxy": "", "HTTPS_PROXY": "http://127.0.0.1:1"}, DIRECT),
    ("lower case wins", {"https_proxy": "http://{proxy}", "HTTPS_PROXY": "http://127.0.0.1:1"}, THROUGH),
    ("https wins over all", {"HTTPS_PROXY": "http://{proxy}", "all_proxy": "http://127.0.0.1:1"}, THROUGH),
    ("nothing listens", {"HTTPS_PROXY": "http://127.0.0.1:1"}, "through the proxy of HTTPS_PROXY: Connection refused"),
    ("an unknown host", {"ALL_PROXY": "http://proxy.invalid:1"}, "through the proxy of ALL_PROXY: "),
    ("a scheme that does not exist", {"HTTPS_PROXY": "ftp://{proxy}"}, "HTTPS_PROXY has a scheme"),
    ("socks4", {"all_proxy": "socks4://{proxy}"}, "all_proxy has a scheme"),
    ("SOCKS without its package", {"ALL_PROXY": "socks5://{proxy}"}, "ALL_PROXY is a SOCKS proxy.*socksio"),
    ("SOCKS with remote names", {"ALL_PROXY": "socks5h://{proxy}"}, "ALL_PROXY is a SOCKS proxy.*socksio"),
    ("SOCKS that is excluded", {"ALL_PROXY": "socks5://{proxy}", "NO_PROXY": "*"}, DIRECT),
    ("a port that is text", {"HTTPS_PROXY": "http://127.0.0.1:port"}, "HTTPS_PROXY is not a valid URL"),
    ("a port that is too large", {"HTTPS_PROXY": "http://127.0.0.1:70000"}, "HTTPS_PROXY is not a valid URL"),
    ("no host", {"HTTPS_PROXY": "http://"}, "HTTPS_PROXY has no host"),
    ("quotes", {"HTTPS_PROXY": "'http://{proxy}'"}, "HTTPS_PROXY is not a valid URL"),
    ("quotes around the host", {"HTTPS_PROXY": '"{proxy}"'}, "HTTPS_PROXY is not a valid URL"),
    ("a blank inside", {"HTTPS_PROXY": "http://a b:1"}, "HTTPS_PROXY is not a valid URL"),
    ("a slash in a password", {"HTTPS_PROXY": "http://ada:12/p@ss@{proxy}"}, "HTTPS_PROXY has more than a host"),
    ("a hash in a password", {"HTTPS_PROXY": "http://ada:34#p@ss@{proxy}"}, "HTTPS_PROXY has more than a host"),
    ("a question mark in a password", {"HTTPS_PROXY": "http://ada:9?p@ss@{proxy}"}, "HTTPS_PROXY has more than a host"),
    ("a path", {"HTTPS_PROXY": "http://{proxy}/proxy.pac"}, "HTTPS_PROXY has more than a host"),
    ("an address that is none", {"HTTPS_PROXY": "http://[::1]x:1"}, "HTTPS_PROXY is not a valid URL"),
    ("two proxies", {"HTTPS_PROXY": "http://a:1,http://b:2"}, "HTTPS_PROXY is not a valid URL"),
    ("half an IPv6 address", {"HTTPS_PROXY": "http://[::1:1"}, "HTTPS_PROXY is not a valid URL"),
    ("an IPv6 address", {"HTTPS_PROXY": "http://[::1]:1"}, "through the proxy of HTTPS_PROXY: "),
    ("an IPv6 address without brackets", {"HTTPS_PROXY": "http://fd00::1:3128"}, "HTTPS_PROXY is not a valid URL"),
    ("NO_PROXY alone", {"NO_PROXY": "10.0.0.0/8,fd00::/8"}, DIRECT),
    ("no_proxy alone", {"no_proxy": "::1,fe80::1%eth0,[fd00::]/8"}, DIRECT),
    ("networks of IPv4 and IPv6", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "10.0.0.0/8,fd00::/8"}, THROUGH),
    ("addresses in brackets", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "[::1],[fd00::1]:80,127.0.0.1:8080"}, THROUGH),
    ("every host is excluded", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "*"}, DIRECT),
    ("every host among others", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "localhost, *"}, DIRECT),
    ("the host", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": HOST}, DIRECT),
    ("the host in upper case", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": HOST.upper()}, DIRECT),
    ("its domain", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "cloudflareaccess.com"}, DIRECT),
    ("its domain with a dot", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": ".cloudflareaccess.com"}, DIRECT),
    ("its domain with a wildcard", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "*.cloudflareaccess.com"}, DIRECT),
    ("its port", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": f"{HOST}:443"}, DIRECT),
    ("another port", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": f"{HOST}:8443"}, THROUGH),
    ("its URL", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": f"https://{HOST}"}, DIRECT),
    ("its URL with another scheme", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": f"http://{HOST}"}, THROUGH),
    ("another host", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "example.com,flareaccess.com"}, THROUGH),
    ("blanks, commas and newlines", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": f" , a.example\t,,\n {HOST} ,"}, DIRECT),
    ("blanks as separators", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": f"localhost {HOST}"}, DIRECT),
    ("dots and stars that are no host", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": ".,*.,://,:"}, THROUGH),
    ("odd characters", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": "%,[,](,\\,é,\x7f,@#?"}, THROUGH),
    ("an empty NO_PROXY", {"HTTPS_PROXY": "{proxy}", "NO_PROXY": ""}, THROUGH),
    ("an empty no_proxy wins", {"HTTPS_PROXY": "{proxy}", "no_proxy": "", "NO_PROXY": "*"}, THROUGH),
    ("SSL_CERT_FILE is missing", {"SSL_CERT_FILE": "{missing}"}, "SSL_CERT_FILE names a file that cannot be read"),
    ("SSL_CERT_FILE is empty", {"SSL_CERT_FILE": "{empty}"}, "SSL_CERT_FILE names a file without usable"),
    ("SSL_CERT_FILE is text", {"SSL_CERT_FILE": "{text}"}, "SSL_CERT_FILE names a file without usable"),
    ("SSL_CERT_FILE is a folder", {"SSL_CERT_FILE": "{plain}"}, "SSL_CERT_FILE names a file "),
    (
        "SSL_CERT_FILE is the wrong CA",
        {"SSL_CERT_FILE": "{other}"},
        "TLS failed: .*; SSL_CERT_FILE names the CA",
    ),
    ("SSL_CERT_FILE is not set", {"SSL_CERT_FILE": ""}, "TLS failed: [^;]*$"),
    ("SSL_CERT_DIR", {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "{hashed}"}, DIRECT),
    ("SSL_CERT_FILE wins", {"SSL_CERT_FILE": "{ca}", "SSL_CERT_DIR": "{missing}"}, DIRECT),
    (
        "SSL_CERT_FILE wins over a folder with the CA",
        {"SSL_CERT_FILE": "{other}", "SSL_CERT_DIR": "{hashed}"},
        "TLS failed",
    ),
    ("two folders", {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "{plain}:{hashed}"}, DIRECT),
    ("SSLKEYLOGFILE cannot be written", {"SSLKEYLOGFILE": "{missing}/log"}, "TLS cannot be set up.*SSLKEYLOGFILE"),
    ("SSL_CERT_DIR is missing", {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "{missing}"}, "SSL_CERT_DIR names a folder that"),
    ("SSL_CERT_DIR is not hashed", {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "{plain}"}, "SSL_CERT_DIR .*openssl rehash"),
    ("SSL_CERT_DIR is a file", {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "{ca}"}, "SSL_CERT_DIR names a folder that"),
    (
        "a wrong CA behind the proxy",
        {"HTTPS_PROXY": "{proxy}", "SSL_CERT_FILE": "{other}"},
        "TLS failed: .* SSL_CERT_FILE",
    ),
]


@pytest.mark.usefixtures("resolved")
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize(("about", "variables", "expected"), SURROUNDINGS, ids=[row[0] for row in SURROUNDINGS])
async def test_the_keys_are_fetched_or_the_error_names_the_variable(
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    about: str,
    variables: Mapping[str, str],
    expected: str,
    library: Library,
) -> None:
    if "{hashed}" in variables.get("SSL_CERT_DIR", "") and not shutil.which("openssl"):
        pytest.skip("only openssl computes the names of hashed certificates")
    monkeypatch.setenv("SSL_CERT_FILE", network.files["ca"])
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("{proxy}", network.proxy).format_map(network.files))
    before = len(network.tunnels)
    fetch = HttpxFetch(trust_env=True, library=library, connect_timeout=2, read_timeout=2)
    steps = {check_proxy(SETTINGS).status, check_ca(SETTINGS).status}
    try:
        assert (await read_document(fetch, URL, etag=None, no_cache=False)).body == BODY
        found, is_environment = THROUGH if len(network.tunnels) > before else DIRECT, False
    except Exception as problem:  # noqa: BLE001 - each of them is described
        found, is_environment = describe(problem), isinstance(problem, EnvironmentProblem)
    assert re.search(expected, found), f"{about}: {found}"
    assert ("failed" in steps) == is_environment
    shown = f"{found} {check_proxy(SETTINGS).text}"
    assert not any(secret in shown for secret in ("p%40ss", "p@ss", "ada", "ss@"))


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_the_credentials_of_a_proxy_are_sent_decoded(
    network: Network, resolved: None, monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", network.files["ca"])
    monkeypatch.setenv("HTTPS_PROXY", f"http://ada:p%40ss@{network.proxy}")
    await read_document(HttpxFetch(trust_env=True, library=library), URL, etag=None, no_cache=False)
    assert network.tunnels[-1] == "Basic YWRhOnBAc3M="


def test_the_proxy_of_the_system_is_used_if_no_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    monkeypatch.setattr(environment, "proxy_bypass", lambda host: host == "b.example")
    assert proxy_for("https://a.example/") == Proxy("http://proxy.example:3128", "the system's proxy settings")
    assert proxy_for("https://b.example/") is None
    monkeypatch.setenv("NO_PROXY", "a.example")
    assert proxy_for("https://a.example/") is None
    monkeypatch.setattr(environment, "getproxies", lambda: {"https": "http://:1"})
    with pytest.raises(EnvironmentProblem, match="the system's proxy settings has no host; correct them"):
        proxy_for("https://c.example/")


def test_a_socks_proxy_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")
    monkeypatch.setattr(environment, "find_spec", lambda name: object())
    assert proxy_for(URL) == Proxy("socks5://proxy.example:1080", "ALL_PROXY")


@pytest.mark.parametrize("path", ["\x00", "a\x00b"])
def test_a_path_that_no_system_has_is_an_error_that_names_the_variable(path: str) -> None:
    assert environment._file_problem(path) == "names a file that cannot be read (not a valid path)"
    assert environment._folder_problem(path) == "names a folder that cannot be read (not a valid path)"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.touch(mode=0)
    assert environment._file_problem(str(path)) == "names a file that cannot be read (Permission denied)"


def test_the_entry_that_excludes_a_host_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost,.CloudflareAccess.com")
    assert excluding_entry(URL) == ".CloudflareAccess.com"
    assert excluding_entry("https://cloudflareaccess.com.evil.example/") is None


def test_a_proxy_is_shown_without_its_credentials() -> None:
    assert Proxy("http://ada:p@ss@proxy.example:3128/", "HTTPS_PROXY").shown == "http://proxy.example:3128"
