"""No request without a token gets past the guard, over real servers, whatever its target and its headers are."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.answer_servers import SERVERS, uvicorn_serving
from support.guarded import ATTACKS, EXEMPT, MOUNTED, OPEN, SECRET, Attack, handshake, make, make_mounts

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

HEADER = b"Cf-Access-Jwt-Assertion: "
APP = """
from support.guarded import make
from fastapi_cloudflare_access import CloudflareAccess
app = make(CloudflareAccess())
"""
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def team() -> FakeTeam[SystemClock]:
    return FakeTeam("acme", clock=SystemClock())


@pytest.fixture(scope="module")
def certs(team: FakeTeam[SystemClock]) -> Iterator[CertsServer]:
    with CertsServer(team) as server:
        yield server


@pytest.fixture(scope="module")
def token(certs: CertsServer) -> bytes:
    return HEADER + certs.team.user_token("ada@example.com").encode()


@contextmanager
def granian(certs: CertsServer, folder: Path) -> Generator[str]:
    """Run the app by granian; if another process takes the port first, try again."""
    (folder / "app.py").write_text(APP)
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"CF_ACCESS_TEAM_DOMAIN": certs.origin, "CF_ACCESS_AUDIENCE": certs.team.audience}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), environment.get("PYTHONPATH", "")])
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
        command = [
            sys.executable,
            "-m",
            "granian",
            "--interface",
            "asgi",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "app:app",
        ]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            if is_up(process, f"127.0.0.1:{port}"):
                yield f"127.0.0.1:{port}"
                return
        finally:
            process.terminate()
            process.wait(30)
    pytest.fail((folder / "log").read_text())


def is_up(process: "subprocess.Popen[bytes]", address: str) -> bool:
    """Wait until this process, and no other one, answers at the address."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            if OPEN in ask(address, Attack(b"/health").request):
                return process.poll() is None
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module", params=[*SERVERS, "granian"])
def address(
    request: pytest.FixtureRequest, certs: CertsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "granian":
            yield stack.enter_context(granian(certs, tmp_path_factory.mktemp("granian")))
        else:
            yield stack.enter_context(SERVERS[request.param](make(access_of(certs))))


def access_of(certs: CertsServer) -> CloudflareAccess[Any]:
    return CloudflareAccess(team_domain=certs.origin, audience=certs.team.audience, user_model=UserClaims)


def ask(address: str, request: bytes) -> bytes:
    """Send a request and return what the server sends until it closes, or until a response is complete."""
    host, _, port = address.partition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        connection.sendall(request)
        with suppress(ConnectionResetError):
            while not is_complete(received) and (data := connection.recv(65_536)):
                received += data
    return received


def is_complete(received: bytes) -> bool:
    """Check whether a response has come whole; a handshake that succeeds is followed by the first message."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    if status_of(received) == 101:
        return len(body) > len(SECRET)
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0])


def status_of(received: bytes) -> int:
    """Return the status; 0 if the server closed the connection instead."""
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/") else 0


REFUSED = {401, 400, 0}
"""The guard's response, and those of servers that reject the request before the app sees it."""


@pytest.mark.conformance(51, 52)
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_no_request_without_a_token_gets_past_the_guard(address: str, attack: Attack) -> None:
    received = ask(address, attack.request)
    assert status_of(received) in REFUSED
    assert SECRET not in received
    assert OPEN not in received


@pytest.mark.conformance(52)
@pytest.mark.parametrize("path", EXEMPT)
def test_an_exempt_path_is_open_in_each_spelling_that_the_app_sees_as_that_path(address: str, path: str) -> None:
    target = path.encode()
    for spelling in (target, target + b"?x=/admin", target.replace(b"h", b"%68")):
        received = ask(address, Attack(spelling).request)
        assert (spelling, status_of(received), OPEN in received) == (spelling, 200, True)
    assert status_of(ask(address, Attack(target, method=b"DELETE").request)) == 405


@pytest.mark.conformance(51)
@pytest.mark.parametrize("target", [b"/feed", b"/health", b"/inner/feed", b"/inner/health", b"/nothing", b"/admin"])
def test_no_handshake_without_a_token_is_accepted_on_any_path(address: str, token: bytes, target: bytes) -> None:
    for fields in ((), (b"Cookie: CF_Authorization=a.b.c",), (b"Origin: http://app.example.com",)):
        received = ask(address, handshake(target, *fields))
        assert status_of(received) in {401, 403}
        assert SECRET not in received
    if target in (b"/feed", b"/inner/feed"):
        received = ask(address, handshake(target, token))
        assert (status_of(received), SECRET in received) == (101, True)


@pytest.mark.parametrize("target", [b"/admin", b"/inner/admin", b"/nested/admin", b"/files/a.css", b"/health/admin"])
def test_a_token_opens_what_is_behind_the_guard(address: str, token: bytes, target: bytes) -> None:
    received = ask(address, Attack(target, (token,)).request)
    assert (status_of(received), SECRET in received) == (200, True)
    assert b"cache-control: private, no-cache" in received.lower()


@pytest.fixture(scope="module", params=["h11", "httptools"])
def below_a_root_path(request: pytest.FixtureRequest, certs: CertsServer) -> Iterator[str]:
    serve = partial(uvicorn_serving, http=request.param, root_path="/health")
    with serve(make(access_of(certs))) as address:
        yield address


@pytest.mark.conformance(52)
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_root_path_that_is_an_exempt_path_opens_nothing_else(below_a_root_path: str, attack: Attack) -> None:
    received = ask(below_a_root_path, attack.request)
    assert status_of(received) in REFUSED
    assert SECRET not in received
    assert status_of(ask(below_a_root_path, Attack(b"/health").request)) == 200


@pytest.fixture(scope="module", params=list(SERVERS))
def mounted(request: pytest.FixtureRequest, certs: CertsServer) -> Iterator[str]:
    with SERVERS[request.param](make_mounts(access_of(certs))) as address:
        yield address


@pytest.mark.conformance(51, 52)
@pytest.mark.parametrize("attack", MOUNTED, ids=str)
def test_no_request_without_a_token_gets_past_a_mounted_guard(mounted: str, attack: Attack) -> None:
    received = ask(mounted, attack.request)
    assert status_of(received) in REFUSED | {404}
    assert SECRET not in received
    assert OPEN not in received


@pytest.mark.conformance(52)
def test_the_exempt_path_of_a_mounted_guard_is_below_the_mount_alone(mounted: str, token: bytes) -> None:
    assert OPEN in ask(mounted, Attack(b"/mounted/health").request)
    assert status_of(ask(mounted, Attack(b"/health").request)) == 404
    assert SECRET in ask(mounted, Attack(b"/mounted/admin", (token,)).request)
    assert status_of(ask(mounted, handshake(b"/mounted/health"))) == 401
    assert SECRET in ask(mounted, handshake(b"/mounted/health", token))
