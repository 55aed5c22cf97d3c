"""The certs server has real sockets and real faults, and leaves nothing behind."""

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

PATH = "/cdn-cgi/access/certs"


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam("acme")


@pytest.fixture
def server(team: FakeTeam) -> Iterator[CertsServer]:
    with CertsServer(team) as server:
        yield server


def get(server: CertsServer, path: str = PATH, **headers: str) -> httpx.Response:
    return httpx.get(server.origin + path, headers=headers, trust_env=False, timeout=0.5)


def test_it_serves_what_the_team_publishes_and_counts(team: FakeTeam, server: CertsServer) -> None:
    answer = get(server, cache="no")
    assert (answer.status_code, answer.content) == (200, team.certs_body())
    assert (answer.headers["content-type"], answer.headers["connection"]) == ("application/json", "close")
    assert (server.fetches, server.requests[0].url, server.requests[0].headers["cache"]) == (1, PATH, "no")


def test_its_origin_is_the_issuer_of_the_team_while_it_runs(team: FakeTeam) -> None:
    before = team.issuer
    with CertsServer(team) as server:
        assert team.issuer == server.origin == Settings.load(team_domain=server.origin, audience="a").issuer
        assert team.user("ada@example.com").iss == server.origin
    assert team.issuer == before


def test_nothing_else_is_served_or_counted(server: CertsServer) -> None:
    assert [get(server, path).status_code for path in ("/", PATH + "/", PATH + "?x")] == [404, 404, 404]
    assert server.fetches == 0


def test_two_servers_run_at_once(server: CertsServer) -> None:
    with CertsServer(FakeTeam("other")) as other:
        assert get(other).content != get(server).content


def test_rotation_shows_at_once(team: FakeTeam, server: CertsServer) -> None:
    team.rotate()
    assert [key["kid"] for key in get(server).json()["keys"]] == [key.kid for key in team.keys]


def test_an_etag_saves_the_body(team: FakeTeam) -> None:
    with CertsServer(team, etag=True, headers={"cache-control": "max-age=60"}) as server:
        first = get(server)
        again = get(server, **{"if-none-match": first.headers["etag"]})
    assert (first.headers["cache-control"], again.status_code, again.content) == ("max-age=60", 304, b"")


def test_status_and_body_are_as_asked_for(server: CertsServer) -> None:
    server.fail_with(503, times=1)
    server.redirect("https://evil.example/", times=1)
    server.gzip_bomb(100_000, times=1)
    answers = [get(server) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 302, 200, 200]
    assert len(answers[2].content) == 100_000


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("truncate", httpx.RemoteProtocolError),
        ("reset", httpx.ReadError),
        ("refuse", httpx.ReadError),
        ("hang", httpx.ReadTimeout),
        ("stall", httpx.ReadTimeout),
    ],
)
def test_broken_connections_are_broken_on_the_wire(server: CertsServer, fault: str, error: type[Exception]) -> None:
    getattr(server, fault)(times=1)
    with pytest.raises(error):
        get(server)
    assert get(server).status_code == 200


def test_a_dripping_answer_comes_in_pieces(team: FakeTeam, server: CertsServer) -> None:
    server.drip(0.01, size=1_000)
    started = time.monotonic()
    assert get(server).content == team.certs_body()
    assert time.monotonic() - started >= 0.03


def test_stopping_closes_connections_that_hang_or_drip(team: FakeTeam) -> None:
    with CertsServer(team) as server:
        server.hang(times=1)
        server.drip(30, size=1_000, times=1)
        clients = [socket.create_connection(("127.0.0.1", int(server.origin.rpartition(":")[2]))) for _ in range(2)]
        for client in clients:
            client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while server.fetches < 2:
            time.sleep(0.005)
    for client in clients:
        client.settimeout(2)
        while client.recv(65_536):
            pass
        client.close()


def test_a_client_that_disconnects_is_ignored(server: CertsServer, capfd: pytest.CaptureFixture[str]) -> None:
    server.drip(0.005, size=100, times=1)
    client = socket.create_connection(("127.0.0.1", int(server.origin.rpartition(":")[2])))
    client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    client.recv(10)
    client.close()
    time.sleep(0.05)
    assert get(server).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_a_fault_of_the_kit_itself_is_shown(server: CertsServer, capfd: pytest.CaptureFixture[str]) -> None:
    server._script.append((lambda _: 1 / 0, None))  # type: ignore[arg-type,return-value]
    with pytest.raises(httpx.RemoteProtocolError):
        get(server)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_no_thread_remains(team: FakeTeam) -> None:
    with CertsServer(team):
        pass
    assert "certs-server" not in [thread.name for thread in threading.enumerate()]


def test_the_origin_is_only_known_while_it_runs(team: FakeTeam) -> None:
    with pytest.raises(RuntimeError, match="with CertsServer"):
        _ = CertsServer(team).origin


def test_servers_of_one_team_that_stop_in_any_order_restore_its_issuer(team: FakeTeam) -> None:
    first, second = CertsServer(team), CertsServer(team)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert team.issuer == second.origin
    second.__exit__(None, None, None)
    assert team.issuer == "https://acme.cloudflareaccess.com"


def test_a_running_server_cannot_be_started_again(team: FakeTeam, server: CertsServer) -> None:
    with pytest.raises(RuntimeError, match=r"already running; create another CertsServer\(team\)"), server:
        pass
    assert team.issuer == server.origin
    assert get(server).status_code == 200


def test_a_server_that_has_stopped_can_run_again(team: FakeTeam) -> None:
    server = CertsServer(team)
    for _ in range(2):
        with server:
            assert get(server).status_code == 200


def test_a_second_exit_changes_nothing(team: FakeTeam) -> None:
    with CertsServer(team) as server:
        server.__exit__(None, None, None)
    assert team.issuer == "https://acme.cloudflareaccess.com"
