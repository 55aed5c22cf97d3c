"""Each kind of handler gets the claims of its own caller, over real servers."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest
from support.answer_servers import SERVERS
from support.answer_table import Team, bot, protector
from support.handler_app import HAS_EVENT_STREAMS, HandlerApp, make_app
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

EMAIL = "ada@example.com"
HEADER = "Cf-Access-Jwt-Assertion"
PATHS = [
    *("/sync", "/async", "/any", "/state"),
    *("/background", "/generators", "/stream", "/class", "/object"),
    *("/outer/middle/inner/state", "/included/user", "/mounted/user", "/mounted/deeper/user"),
    *("/endpoint", "/plain"),
]
EVENTS = ["/events", *(["/native-events"] if HAS_EVENT_STREAMS else [])]


@pytest.fixture(scope="module")
def team() -> Team:
    return FakeTeam("acme", clock=SystemClock())


@pytest.fixture(scope="module")
def handlers(team: Team) -> Iterator[HandlerApp]:
    with CertsServer(team) as certs:
        yield make_app(protector(certs))


@pytest.fixture(scope="module", params=SERVERS)
def address(request: pytest.FixtureRequest, handlers: HandlerApp) -> Iterator[str]:
    with SERVERS[request.param](handlers.app) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=20) as client:
        yield client


def headers(team: Team, email: str = EMAIL) -> dict[str, str]:
    return {HEADER: team.user_token(email)}


@pytest.mark.parametrize("path", PATHS)
def test_a_handler_gets_the_claims_of_its_caller(client: httpx.Client, team: Team, path: str) -> None:
    response = client.get(path, headers=headers(team))
    assert (response.status_code, response.json()) == (200, EMAIL)


@pytest.mark.parametrize("path", [*PATHS, *EVENTS, "/turns/1"])
def test_a_handler_does_not_run_without_a_token(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (401, {"detail": "No Cloudflare Access token"})


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/any"])
def test_a_handler_for_users_does_not_run_for_a_service(client: httpx.Client, team: Team, path: str) -> None:
    assert client.get(path, headers={HEADER: bot(team)}).status_code == 403


def test_a_handler_for_all_callers_gets_the_claims_of_a_service(client: httpx.Client, team: Team) -> None:
    assert client.get("/any", headers={HEADER: bot(team)}).json().endswith(".access")


def done(client: httpx.Client, handlers: HandlerApp, team: Team, path: str, number: int) -> list[str]:
    """Ask as a caller that no other test has, and return what was done for it."""
    email = f"{uuid4()}@example.com"
    assert client.get(path, headers=headers(team, email)).status_code == 200
    return [handlers.done[email].get(timeout=20) for _ in range(number)]


def test_background_tasks_have_the_claims_after_the_response(
    client: httpx.Client, handlers: HandlerApp, team: Team
) -> None:
    assert done(client, handlers, team, "/background", 2) == ["sync", "async"]


def test_a_generator_dependency_has_the_claims_when_it_ends(
    client: httpx.Client, handlers: HandlerApp, team: Team
) -> None:
    """One of scope `function` ends before the response is sent, one of scope `request` after it."""
    assert done(client, handlers, team, "/generators", 3) == ["function", "stream", "request"]


@pytest.mark.parametrize("path", EVENTS)
def test_an_event_stream_has_the_claims(client: httpx.Client, team: Team, path: str) -> None:
    with client.stream("GET", path, headers=headers(team)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert [json.loads(event) for event in events] == [EMAIL]


def test_streams_at_the_same_time_keep_their_callers_apart(client: httpx.Client, team: Team) -> None:
    emails = [f"user{number}@example.com" for number in range(6)]

    def read(email: str) -> set[str]:
        return {*client.get("/turns/200", headers=headers(team, email)).text.split()}

    with ThreadPoolExecutor(len(emails)) as threads:
        assert list(threads.map(read, emails)) == [{email} for email in emails]


def test_a_websocket_handler_gets_the_claims_of_its_caller(address: str, team: Team) -> None:
    with connect(f"ws://{address}/socket", additional_headers=headers(team), proxy=None) as socket:
        assert json.loads(socket.recv()) == EMAIL
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://{address}/socket", proxy=None):
        pytest.fail("let in")
    assert refused.value.response.status_code == 401
