"""What the audit of an app's routes sees through: each trap is a small app, and is also asked for real."""

import logging
from asyncio import Event
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import BaseRoute, Router
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from support.route_traps import (
    NEVER,
    OPEN,
    SAFE,
    STAFF,
    STRICT,
    TEAM,
    TRAPS,
    UNSEEN,
    access,
    added_twice,
    below_the_apps_own_dependency,
    exception_handler_that_answers_200,
    guard_of_another_object,
    guard_with_exempt_paths,
    http_middleware,
    middleware_that_answers_first,
    middleware_that_refuses,
    mounts,
    no_dependency,
    optional,
    other,
    other_methods,
    other_object,
    overridden,
    own_classes_of_routes,
    page,
    plain,
    ran,
    raw,
    root_paths,
    route_class_that_calls_the_endpoint,
    talk,
    with_route,
)

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError
from fastapi_cloudflare_access.guard import AccessGuard
from fastapi_cloudflare_access.policies import EmailDomain
from fastapi_cloudflare_access.testing import assert_protected, override
from fastapi_cloudflare_access.testing._audit.asking import Asker
from fastapi_cloudflare_access.testing._audit.entries import NEVER as NEVER_REACHED
from fastapi_cloudflare_access.testing._audit.entries import Entry
from fastapi_cloudflare_access.testing._audit.running import audit


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    ran.clear()
    yield
    ran.clear()


def summary(entries: list[Entry]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        name = f"{entry.shown_methods} {entry.path}"
        state = NEVER if not entry.is_reached else OPEN if entry.is_open else SAFE
        found[f"{name}#2" if name in found else name] = state
    return found


@pytest.mark.conformance(85, 108)
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_the_audit_sees_through_the_trap_and_runs_no_handler(trap: Callable[[], Any]) -> None:
    app = trap()
    assert summary(audit(app, [access]).entries) == TRAPS[trap]
    assert ran == []


VALUES = {
    "{it:nine}": "x" * 9,
    "{number:int}": "7",
    "{ratio:float}": "0.5",
    "{rest:path}": "one/two/three",
    "{id:uuid}": "0e9d5c4e-5d3f-4c6b-9a59-1f0c6a3d2b10",
    "*": "file",
}
CASES = [(trap, name) for trap, names in TRAPS.items() for name in names if (trap, name) not in UNSEEN]


def ask(app: Any, method: str, path: str) -> int:
    """Send a real request without a token, and return the status."""
    for template, value in VALUES.items():
        path = path.replace(template, value)
    host, slash, path = path.replace("{", "").replace("}", "").partition("/")
    client = TestClient(app, base_url=f"https://{host or 'audit.example.com'}", follow_redirects=False)
    if method != "WS":
        return client.request(method.replace("ANY", "GET"), slash + path).status_code
    try:
        with client.websocket_connect(slash + path):
            return 101
    except WebSocketDenialResponse as denial:
        return denial.status_code
    except WebSocketDisconnect:
        return 403


@pytest.mark.conformance(85)
@pytest.mark.parametrize(("trap", "name"), CASES, ids=[f"{trap.__name__}-{name}" for trap, name in CASES])
def test_a_real_request_without_a_token_gets_what_the_audit_says(trap: Callable[[], Any], name: str) -> None:
    app = trap()
    audit(app, [access])  # which leaves the app as it was
    method, path = name.removesuffix("#2").split(" ")
    try:
        status = ask(app, method, f"/api{path}" if trap is root_paths else path)
    except Exception:  # noqa: BLE001 - a server answers 500
        status = 500
    expected = TRAPS[trap][name.removesuffix("#2")]  # an earlier route with this path answers
    shows_something = status < 300 or bool({"handler", "page", "talk", "raw"} & {*ran})
    assert (expected, shows_something) in {(OPEN, True), (SAFE, False), (NEVER, False)}, status


# what the audit leaves alone


def test_no_lifespan_starts_and_the_middleware_of_the_app_can_still_change() -> None:
    def lifespan(app: FastAPI) -> Any:
        pytest.fail("it started")

    app = with_route(plain(lifespan=lifespan), **STRICT)
    assert_protected(app, access)
    app.add_middleware(GZipMiddleware)


@pytest.mark.conformance(86)
def test_a_dependency_with_its_own_parameters_works_as_before() -> None:
    app = below_the_apps_own_dependency()
    ada = TEAM.headers(TEAM.user("ada@example.com"))
    assert_protected(app, access)
    client = TestClient(app)
    answer = client.post("/x/1?q=a", json={"a": 1}, headers={**ada, "h": "2"})
    assert (answer.status_code, answer.json()) == (200, "secret")
    assert client.post("/x/one?q=a", json={"a": 1}, headers={**ada, "h": "2"}).status_code == 422
    assert ran == ["current", "handler", "current"]


def test_an_event_stream_works_as_before() -> None:
    pytest.importorskip("fastapi.sse")
    app = plain()

    @app.get("/stream", **STRICT)
    async def stream() -> Any:
        yield {"number": 1}

    assert_protected(app, access)
    assert TestClient(app).get("/stream", headers=TEAM.headers(TEAM.user("ada@example.com"))).json() == {"number": 1}


@pytest.mark.conformance(110)
def test_overrides_stay_and_hide_nothing_of_other_routes() -> None:
    app = overridden()
    before = dict(app.dependency_overrides)
    audit(app, [access])
    assert app.dependency_overrides == before
    assert ran == []


@pytest.mark.conformance(86)
def test_requests_of_the_audit_leave_no_record_and_no_event(caplog: pytest.LogCaptureFixture) -> None:
    events: list[object] = []
    heard = CloudflareAccess(team_domain="acme", audience="0" * 64, listeners=[events.append])
    app = with_route(plain(), dependencies=[Depends(heard)])
    with caplog.at_level(logging.DEBUG, logger="fastapi_cloudflare_access"):
        assert_protected(app, heard)
        assert audit(app).problems == []
    assert (events, caplog.records) == ([], [])
    assert TestClient(app).get("/x").status_code == 401
    assert len(events) == 1


@pytest.mark.conformance(110)
def test_an_override_of_the_caller_does_not_open_a_route() -> None:
    app = with_route(plain(), **STRICT)
    with override(access, TEAM.user("ada@example.com")):
        assert_protected(app, access)
        assert TestClient(app).get("/x").status_code == 200
    assert TestClient(app).get("/x").status_code == 401


@pytest.mark.anyio
async def test_an_app_can_be_audited_while_an_event_loop_runs() -> None:
    assert_protected(with_route(plain(), **STRICT), access)


@pytest.mark.conformance(85)
def test_a_request_that_never_ends_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi_cloudflare_access.testing._audit.asking.TIMEOUT", 0.01)

    async def endless(request: Request, call_next: Any) -> Response:
        await Event().wait()
        return Response()

    app = with_route(plain(), **STRICT)
    app.add_route("/page", page)
    app.add_middleware(BaseHTTPMiddleware, dispatch=endless)
    (entry,) = [entry for entry in audit(app, [access]).entries if entry.is_open]
    assert entry.why == "a request ends before it with TimeoutError, which is no refusal by access"


def test_an_app_that_is_mounted_twice_shows_each_route_of_its_routers() -> None:
    inner, outer, router = plain(), plain(), APIRouter()
    router.add_route("/page", page)
    inner.include_router(router, prefix="/router")
    outer.mount("/one", inner)
    outer.mount("/two", inner)
    entries = audit(outer, [access]).entries
    assert summary(entries) == {"GET /one/router/page": OPEN, "GET /two/router/page": OPEN}
    assert TestClient(outer).get("/two/router/page").text == "secret"


class Console:
    """An ASGI app that keeps another one, and answers itself."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response("console")(scope, receive, send)


@pytest.mark.parametrize("around", [None, Router()], ids=["the app itself", "an app without routes"])
def test_a_mounted_object_that_answers_itself_is_open_whichever_app_it_keeps(around: Any) -> None:
    app = plain()
    app.mount("/console", Console(around or app))
    app.mount("/again", GZipMiddleware(around or app))
    app.mount("/guarded", AccessGuard(Console(around or app), access=access))
    assert TestClient(app).get("/console/x").text == "console"
    assert summary(audit(app, [access]).entries) == {"ANY /console/*": OPEN}


class Fixed(BaseRoute):
    """A route whose endpoint cannot be replaced."""

    path = "/fixed"

    @property
    def endpoint(self) -> Any:
        return page


@pytest.mark.conformance(86)
def test_an_audit_that_fails_leaves_the_app_as_it_was() -> None:
    app = with_route(plain(), **STRICT)
    app.router.routes.append(Fixed())
    with pytest.raises(AttributeError, match="endpoint"):
        assert_protected(app, access)
    with override(access, TEAM.user("ada@acme.example")):
        assert TestClient(app).get("/x").json() == "secret"


def test_several_threads_can_audit_one_app() -> None:
    app = plain()
    for number in range(50):
        with_route(app, f"/{number}", **STRICT)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(assert_protected, app, access) for _ in range(8)]:
            done.result()
    with override(access, TEAM.user("ada@acme.example")):
        assert TestClient(app).get("/0").json() == "secret"


def test_a_fallback_is_asked_at_a_host_that_reaches_it() -> None:
    hosts, trusted = plain(), plain()
    hosts.host("a.example", AccessGuard(Router(default=raw), access=access))
    hosts.host("b.example", Router(default=raw))
    assert summary(audit(hosts, [access]).entries) == {"ANY a.example/*": SAFE, "ANY b.example/*": OPEN}
    trusted.mount("/guarded", AccessGuard(Router(default=raw), access=access))
    trusted.add_middleware(TrustedHostMiddleware, allowed_hosts=["a.example"])
    assert summary(audit(trusted, [access]).entries) == {"ANY /guarded/*": SAFE}


# which callers may enter


def test_the_callers_and_policies_of_each_route_are_named() -> None:
    app = FastAPI(dependencies=[Depends(access)])
    with_route(app, "/users", dependencies=[Depends(access.user)])
    with_route(app, "/services", dependencies=[Depends(access.service)])
    with_route(app, "/nothing", dependencies=[Depends(access.service), Depends(access.user)])
    with_route(app, "/staff", dependencies=[Depends(access.require_user(STAFF))])
    app.add_middleware(AccessGuard, access=access, policy=EmailDomain("acme.example"))
    found = {entry.path: (entry.who, entry.by) for entry in audit(app, [access]).entries}
    domain = "EmailDomain('acme.example')"
    assert found["/docs"] == (f"users and services with {domain}", ("AccessGuard",))
    assert found["/users"] == (f"users with {domain}", ("AccessGuard", "access", "access.user"))
    assert found["/services"][0] == f"services with {domain}"
    assert found["/nothing"][0] == f"no caller with {domain}"
    assert found["/staff"][0] == f"users with {domain} and {STAFF!r}"


def test_identities_and_roles_are_of_the_callers_that_their_dependency_admits() -> None:
    app = with_route(plain(), "/identity", dependencies=[Depends(access.identity)])
    with_route(app, "/roles", dependencies=[Depends(access.roles({"staff": STAFF}))])
    assert [entry.who for entry in audit(app, [access]).entries] == ["users", "users and services"]


def test_an_object_of_several_counts_with_those_that_it_combines() -> None:
    reports = access.with_audience("2" * 64)
    app = with_route(plain(), "/either", dependencies=[Depends((access | reports).user)])
    either = access | reports
    with_route(app, "/first", dependencies=[Depends(access.user)])
    with_route(app, "/both", dependencies=[Depends(either.service)])
    found = {entry.path: entry.who for entry in audit(app, [either]).entries}
    assert found == {"/either": "anyone", "/first": "users", "/both": "services"}


def test_a_route_that_only_middleware_protects_says_so() -> None:
    (entry, _) = audit(http_middleware(), [access]).entries
    assert (entry.who, entry.by) == ("users and services", ("middleware",))


REASONS = {
    no_dependency: "no dependency of access",
    optional: "access.optional admits clients without a token",
    overridden: "access.user is overridden",
    other_object: "access.user of another CloudflareAccess object",
    guard_of_another_object: "AccessGuard of another CloudflareAccess object",
    mounts: "dependencies do not reach it",
    exception_handler_that_answers_200: "the app answers 200 to a refused request",
    middleware_that_answers_first: "the app answers 200 to a request without a token",
    middleware_that_refuses: "a request ends before it with status 403, which is no refusal by access",
    route_class_that_calls_the_endpoint: "its class handles requests itself, so its dependencies do not count",
    own_classes_of_routes: "its class OwnMatch selects its requests itself",
    guard_with_exempt_paths: "exempt from AccessGuard",
}


@pytest.mark.conformance(110)
@pytest.mark.parametrize("trap", REASONS, ids=lambda trap: trap.__name__)
def test_an_open_route_has_a_reason(trap: Callable[[], Any]) -> None:
    first = next(entry for entry in audit(trap(), [access]).entries if entry.is_open)
    assert first.why == REASONS[trap]
    assert first.advice


@pytest.mark.conformance(85)
def test_a_mount_behind_a_route_of_one_segment_is_open_for_the_paths_of_more() -> None:
    app = with_route(plain(), "/a/{id}", **STRICT)
    app.mount("/a", raw)
    assert summary(audit(app, [access]).entries) == {"GET /a/{id}": SAFE, "ANY /a/*": OPEN}
    client = TestClient(app)
    assert [client.get(path).text == "secret" for path in ("/a/one", "/a/one/two")] == [False, True]


def test_a_route_that_no_request_reaches_says_why() -> None:
    second = audit(added_twice(), [access]).entries[1]
    assert (second.who, second.why) == ("never reached", "/a is declared before it")


def test_a_protected_route_that_an_earlier_one_shadows_is_never_reached(tmp_path: Path) -> None:
    app = plain()
    app.mount("/", StaticFiles(directory=tmp_path))
    with_route(app, "/healthz")
    with_route(app, "/api/jobs", dependencies=[Depends(access.user)])
    app.add_middleware(AccessGuard, access=access)
    found = {entry.path: (entry.who, entry.why) for entry in audit(app, [access]).entries}
    never = (NEVER_REACHED, "/* is declared before it")
    assert found == {"/*": ("users and services", None), "/healthz": never, "/api/jobs": never}
    app = with_route(plain(), "/users/{name}", **STRICT)
    with_route(app, "/users/me", dependencies=[Depends(access.require_user(STAFF))])
    assert audit(app, [access]).entries[1].why == "/users/{name} is declared before it"


def test_an_exempt_path_that_other_routes_serve_with_other_methods_is_one_entry(tmp_path: Path) -> None:
    app = with_route(plain(), "/healthz")
    app.mount("/", StaticFiles(directory=tmp_path))
    app.add_middleware(AccessGuard, access=access, exempt=["/healthz"])
    found = audit(app, [access]).entries
    assert [(entry.shown_methods, entry.path, entry.is_open) for entry in found] == [
        ("ANY", "/healthz", True),
        ("ANY", "/*", False),
    ]
    assert_protected(app, access, open={"/healthz"})
    with pytest.raises(AssertionError, match="1 route is open"):
        assert_protected(app, access, open={"GET /healthz"})


def test_an_exempt_path_that_one_more_method_reaches_names_the_methods() -> None:
    app = with_route(plain(), "/healthz")
    app.add_api_route("/{path:path}", page, methods=["POST"])
    app.add_middleware(AccessGuard, access=access, exempt=["/healthz"])
    (first, _) = audit(app, [access]).entries
    assert (first.path, first.methods) == ("/healthz", ("GET", "POST"))


def test_several_objects_can_be_given() -> None:
    app = with_route(with_route(plain(), "/other", dependencies=[Depends(other.user)]), **STRICT)
    assert_protected(app, access, other)
    with pytest.raises(AssertionError, match="of another CloudflareAccess object"):
        assert_protected(app, access)


def test_without_an_object_every_one_that_the_app_uses_counts() -> None:
    app = with_route(with_route(plain(), "/other", dependencies=[Depends(other.user)]), **STRICT)
    app.mount("/m", AccessGuard(raw, access=other))
    assert {entry.is_open for entry in audit(app).entries} == {False}
    assert [entry.is_open for entry in audit(no_dependency()).entries] == [True]


# what the failure says


def test_the_failure_is_a_table_that_says_what_to_write() -> None:
    app = FastAPI(docs_url=None, redoc_url=None)
    with_route(app, "/reports/{number}")
    with_route(app, "/health", methods=["GET", "POST"])
    with_route(app, "/me", **STRICT)
    app.add_api_websocket_route("/chat", talk)
    app.mount("/files", StaticFiles(directory=Path(__file__).parent))
    with pytest.raises(AssertionError) as failed:
        assert_protected(app, access, open=["/health"])
    assert str(failed.value) == FAILURE.strip("\n")


FAILURE = """
4 routes are open to clients without a token, of 6:

  METHOD  PATH               WHO MAY ENTER
  GET     /openapi.json      anyone: dependencies do not reach it
          → add AccessGuard to the app, or write openapi_url=None
  GET     /reports/{number}  anyone: no dependency of access
  WS      /chat              anyone: no dependency of access
          → write Depends(access.user)
  ANY     /files/*           anyone: dependencies do not reach it
          → mount AccessGuard(app, access=access)

If they must be open, list them:

  open={"/files/*", "/health", "/openapi.json", "/reports/{number}", "WS /chat"}
"""


def test_a_failure_shows_at_most_fifty_routes() -> None:
    app = plain()
    for number in range(60):
        with_route(app, f"/{number:02}")
    with pytest.raises(AssertionError) as failed:
        assert_protected(app, access)
    assert "\n  … and 10 more\n" in str(failed.value)
    assert str(failed.value).startswith("60 routes are open")


def test_one_open_route_is_one_route() -> None:
    with pytest.raises(AssertionError, match=r"^1 route is open to clients without a token, of 1:"):
        assert_protected(no_dependency(), access)


@pytest.mark.parametrize(
    ("listed", "passes"),
    [
        ({"/x"}, True),
        ({"HEAD /x", "options /x"}, True),
        ({"HEAD /x"}, False),
        ({"WS /x", "HEAD /x"}, False),
        ([], False),
    ],
)
def test_a_path_lists_every_method_and_a_method_only_itself(listed: Any, passes: bool) -> None:  # noqa: FBT001
    if passes:
        assert_protected(other_methods(), access, open=listed)
    else:
        with pytest.raises(AssertionError):
            assert_protected(other_methods(), access, open=listed)


def test_a_path_does_not_list_a_websocket() -> None:
    app = plain()
    app.add_api_websocket_route("/ws", talk)
    with pytest.raises(
        AssertionError, match=r"open lists '/ws', which the app does not serve: did you mean 'WS /ws'\?"
    ):
        assert_protected(app, access, open={"/ws"})
    assert_protected(app, access, open={"WS /ws"})


@pytest.mark.parametrize(
    ("item", "advice"), [("/helth", "did you mean '/health'?"), ("/something/else", "remove it from open=")]
)
def test_a_listed_path_that_is_not_served_is_an_error(item: str, advice: str) -> None:
    app = with_route(plain(), "/health", **STRICT)
    with pytest.raises(AssertionError) as failed:
        assert_protected(app, access, open={item})
    assert str(failed.value) == f"open lists {item!r}, which the app does not serve: {advice}"


@pytest.mark.conformance(109)
def test_an_exempt_path_that_is_not_served_is_an_error() -> None:
    inner = with_route(plain())
    app = plain()
    app.mount("/inner", AccessGuard(inner, access=access, exempt=["/healthz"]))
    with pytest.raises(
        AssertionError, match=r"^the exempt path /inner/healthz is not served: correct it, or remove it"
    ):
        assert_protected(app, access)


def test_a_wrong_declaration_is_an_error() -> None:
    app = with_route(plain(), dependencies=[Security(access.user, scopes=["admin"])])
    with pytest.raises(AssertionError, match=r"^/x: Security\(access\.user, scopes=\['admin'\]\) asks for scopes"):
        assert_protected(app, access)


@pytest.mark.parametrize(
    ("app", "accesses", "listed", "error"),
    [
        (raw, [access], (), "the app must be a FastAPI or Starlette app, not function"),
        (None, [access], (), "the app must be a FastAPI or Starlette app, not NoneType"),
        (TestClient(plain()), [access], (), "the app must be a FastAPI or Starlette app, not TestClient"),
        (plain(), [], (), r"write assert_protected\(app, access\)"),
        (plain(), [access.user], (), r"write assert_protected\(app, access\)"),
        (plain(), [access], "/healthz", r'write open=\{"/healthz"\}'),
        (plain(), [access], None, r'write open=\{"/healthz"\}'),
        (plain(), [access], {"healthz"}, "not 'healthz'"),
        (plain(), [access], {"1 /x"}, "not '1 /x'"),
        (plain(), [access], [b"/x"], "not b'/x'"),
    ],
)
def test_a_wrong_argument_is_a_sentence(app: Any, accesses: list[Any], listed: Any, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        assert_protected(app, *accesses, open=listed)


def test_an_app_without_routes_is_protected() -> None:
    assert_protected(plain(), access)


# size


def test_seven_hundred_routes_cost_one_request_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = Asker.ask

    async def counting(self: Asker, method: str, path: str, host: str) -> Any:
        asked.append(path)
        return await real(self, method, path, host)

    monkeypatch.setattr(Asker, "ask", counting)
    app = plain()
    for number in range(15):
        router = APIRouter(prefix=f"/r{number}", **STRICT)
        for each in range(47):
            with_route(router, f"/{each}")
        app.include_router(router)
    assert_protected(app, access)
    assert len(asked) == 705
