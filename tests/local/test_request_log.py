"""Each request writes one line: what came, which policy decided, and what was answered."""

import logging
import time
from contextlib import suppress

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from support.local_rig import APP, Browser, events_of, make_local_access, make_request

from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.config import Team as TeamSettings
from fastapi_cloudflare_access.local.edge import Edge
from fastapi_cloudflare_access.local.request_log import LineFormatter, logger, printable

POLICIES = (
    Policy(name="Nobody named Bob", decision="deny", emails=("bob@example.com",)),
    Policy(name="The company", domains=("example.com",)),
    Policy(decision="service_auth", everyone=True),
)


class Raw:
    """A backend that calls an ASGI app without its lifespan."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@pytest.fixture
def browser() -> Browser:
    public = App(name="open", paths=("/public",), policies=(Policy(decision="bypass", everyone=True),))
    return Browser(make_local_access(App(name="app", policies=POLICIES), public))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger.name)
    return caplog


def test_a_line_names_the_caller_the_policy_and_the_status(browser: Browser, lines: pytest.LogCaptureFixture) -> None:
    browser.open(APP + "/me?token=secret")
    browser.open(APP + "/public/x")
    browser.log_in()
    browser.open(APP + "/me")
    client_id, name = next(iter(browser.local_access.services.items()))
    secret = browser.local_access.service_secret(client_id, name)
    browser.open(APP + "/job", method="POST", cf_access_client_id=client_id, cf_access_client_secret=secret)
    messages = [record.getMessage() for record in lines.records if record.name == logger.name]
    assert messages[0] == "GET localhost:8787/me - no policy edge 302"
    assert messages[1] == "GET localhost:8787/public/x - bypass app 200"
    assert 'GET localhost:8787/me ada@example.com allow "The company" app 200' in messages
    assert messages[-1] == "POST localhost:8787/job nightly-backup service_auth app 200"
    assert any(message.startswith("GET 127.0.0.1:8787/cdn-cgi/access/login/") for message in messages)
    assert "secret" not in "".join(messages)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("client_id", "secret", "note"),
    [
        ("nightly", "wrong", "the secret of the service token nightly-backup is wrong"),
        ("other.access", "wrong", "the Client ID is of no service token"),
        ("nightly", "", "the service credentials are incomplete or sent twice"),
    ],
)
def test_a_line_says_what_is_wrong_with_service_credentials(
    lines: pytest.LogCaptureFixture,
    client_id: str,
    secret: str,
    note: str,
    strict: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    access = make_local_access(App(name="app", policies=POLICIES), team=TeamSettings(strict_service_tokens=strict))
    given = next(iter(access.services)) if client_id == "nightly" else client_id
    Browser(access).open(APP + "/job", cf_access_client_id=given, cf_access_client_secret=secret)
    assert lines.messages == [f"GET localhost:8787/job - no policy edge {401 if strict else 302} ({note})"]


def test_a_line_says_that_no_policy_admits_a_service_token(lines: pytest.LogCaptureFixture) -> None:
    access = make_local_access(App(name="app", policies=(Policy(decision="allow", everyone=True),)))
    client_id, name = next(iter(access.services.items()))
    secret = access.service_secret(client_id, name)
    Browser(access).open(APP + "/job", cf_access_client_id=client_id, cf_access_client_secret=secret)
    assert lines.messages[0].endswith(f"edge 302 (no policy admits the service token {name})")


def test_a_line_names_the_policy_that_denied(browser: Browser, lines: pytest.LogCaptureFixture) -> None:
    session = browser.local_access.log_in("bob@example.com", ip="")
    person, app = browser.local_access.config.person("bob@example.com"), browser.local_access.config.apps[0]
    token = browser.local_access.team.app_token(session, person, app, host="h")
    browser.open(APP + "/", cf_access_token=token)
    assert lines.messages == ['GET localhost:8787/ bob@example.com deny "Nobody named Bob" edge 403']


@pytest.mark.anyio
async def test_a_handshake_has_a_line_too(lines: pytest.LogCaptureFixture) -> None:
    await events_of(Edge(make_local_access()), make_request("/x", host="127.0.0.1:8787", kind="websocket"))
    assert lines.messages == ["WS 127.0.0.1:8787/x edge 404"]


@pytest.mark.anyio
@pytest.mark.parametrize("ending", ["error", "silence", "error after the start"])
async def test_a_request_that_ends_without_a_response_has_a_line_too(
    ending: str, lines: pytest.LogCaptureFixture
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        if ending == "error after the start":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if ending != "silence":
            raise ZeroDivisionError

    public = App(name="open", policies=(Policy(decision="bypass", everyone=True),))
    with suppress(ZeroDivisionError):
        await events_of(Edge(make_local_access(public), Raw(app)), make_request("/x"))
    status = {"error": "500", "silence": "-", "error after the start": "200"}[ending]
    assert lines.messages == [f"GET localhost:8787/x - bypass app {status}"]


def test_a_line_has_no_control_characters_and_a_limited_length(
    browser: Browser, lines: pytest.LogCaptureFixture
) -> None:
    assert printable("/a\x1b[31m\u202e") == "/a\\x1b[31m\\u202e"
    browser.open(APP + "/" + "x" * 5000)
    assert len(lines.messages[0]) < 300


def test_a_line_begins_with_the_local_time() -> None:
    formatter = LineFormatter()
    times = []
    for created in (1_767_225_600.2, 1_767_225_600.9, 1_767_225_661.0):
        record = logging.makeLogRecord({"msg": "GET %", "created": created})
        times.append(formatter.format(record))
    clock = [time.strftime("%H:%M:%S", time.localtime(second)) for second in (1_767_225_600, 1_767_225_661)]
    assert times == [f"{clock[0]} GET %", f"{clock[0]} GET %", f"{clock[1]} GET %"]


def test_lines_can_be_turned_off(browser: Browser, lines: pytest.LogCaptureFixture) -> None:
    lines.set_level(logging.WARNING, logger.name)
    browser.open(APP + "/")
    assert lines.messages == []
