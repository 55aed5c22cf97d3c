"""`SameOrigin` refuses what a page of another origin makes a browser send, whatever Host the request has."""

import logging
from collections.abc import MutableMapping
from functools import partial
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from support.origins import HOSTS, ORIGINS, OWN, TABLE, Headers, Row, origin

from fastapi_cloudflare_access import AccessHTTPException, CloudflareAccess, ConfigurationError
from fastapi_cloudflare_access._logging import BEFORE_ROUTING
from fastapi_cloudflare_access.browser import SameOrigin

UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "", "GET "]


def scope_of(kind: str, headers: Headers, host: str = HOSTS[0], **more: Any) -> dict[str, Any]:
    listed = [(name, one) for name, value in headers.items() for one in ([value] if isinstance(value, str) else value)]
    raw = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in listed)]
    return {"type": kind, "path": "/x", "headers": raw, "query_string": b"", **more}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "it ran"})


async def sent(scope: Scope, middleware: Any = None) -> list[MutableMapping[str, Any]]:
    """Return what is sent to the client, or that the app ran."""
    messages: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        pytest.fail("it read the request")

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    await (middleware or SameOrigin(app, origins=ORIGINS))(scope, receive, send)
    return messages


async def reaches_the_app(scope: Scope) -> bool:
    messages = await sent(scope)
    return messages == [{"type": "it ran"}]


@pytest.mark.conformance(63)
@pytest.mark.anyio
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_an_unsafe_request_passes_or_not_whatever_its_host_is(row: Row, host: str) -> None:
    scope = scope_of("http", row.headers, host, method="POST")
    assert await reaches_the_app(scope) is row.passes


@pytest.mark.conformance(63)
@pytest.mark.anyio
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_a_handshake_passes_or_not_whatever_its_host_is(row: Row, host: str) -> None:
    passes = row.passes if row.handshake is None else row.handshake
    assert await reaches_the_app(scope_of("websocket", row.headers, host)) is passes


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_a_safe_method_always_passes(row: Row, method: str) -> None:
    assert await reaches_the_app(scope_of("http", row.headers, method=method))


@pytest.mark.anyio
@pytest.mark.parametrize("method", UNSAFE)
async def test_every_other_method_is_unsafe(method: str) -> None:
    scope = scope_of("http", origin("https://evil.example", "cross-site"), method=method)
    assert not await reaches_the_app(scope)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lie",
    [
        {"x-forwarded-host": "evil.example"},
        {"x-forwarded-proto": "https", "x-forwarded-host": "app.example.com"},
        {"x-http-method-override": "GET"},
        {"x-original-method": "GET"},
        {"sec-fetch-mode": "navigate"},
        {"referer": f"{OWN}/"},
        {"x-requested-with": "XMLHttpRequest"},
    ],
)
async def test_other_headers_change_nothing(lie: Headers) -> None:
    scope = scope_of("http", origin("https://evil.example") | lie, "evil.example", method="POST")
    assert not await reaches_the_app(scope)


@pytest.mark.anyio
async def test_a_lifespan_passes() -> None:
    assert await reaches_the_app({"type": "lifespan"})


@pytest.mark.conformance(63)
@given(st.binary(max_size=60), st.lists(st.sampled_from([b"same-origin", b"none", b"cross-site", b"x"]), max_size=2))
def test_only_the_configured_bytes_are_an_origin(value: bytes, sites: list[bytes]) -> None:
    headers = [(b"origin", value), *((b"sec-fetch-site", site) for site in sites)]
    scope = {"type": "websocket", "path": "/", "headers": headers, "query_string": b""}
    assert anyio.run(reaches_the_app, scope) is (value.strip(b" \t") in {one.encode() for one in ORIGINS})


# the refusal


@pytest.mark.anyio
async def test_a_refused_request_gets_403_without_a_challenge() -> None:
    scope = scope_of("http", origin("https://evil.example"), method="POST")
    start, body = await sent(scope)
    assert start["status"] == 403
    headers = dict(start["headers"])
    assert (headers[b"cache-control"], headers[b"vary"]) == (b"no-store", b"Origin, Sec-Fetch-Site")
    assert b"www-authenticate" not in headers
    assert body["body"] == b'{"detail":"A page of another origin sent this request"}'


@pytest.mark.anyio
async def test_a_refused_handshake_is_answered_or_closed() -> None:
    headers = origin("https://evil.example")
    answered = await sent(scope_of("websocket", headers, extensions={"websocket.http.response": {}}))
    assert [message["type"] for message in answered] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert answered[0]["status"] == 403
    assert await sent(scope_of("websocket", headers)) == [
        {"type": "websocket.close", "code": 1008, "reason": "A page of another origin sent this request"}
    ]


@pytest.mark.anyio
async def test_a_refusal_is_logged_without_what_the_client_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_cloudflare_access")
    await sent(scope_of("http", origin("https://evil.example"), "evil.example", method="POST"))
    await sent(scope_of("websocket", {"sec-fetch-site": "evil"}))
    await sent(scope_of("http", {"origin": ["evil", "evil"]}, method="evil"))
    records = [record for record in caplog.records if record.name == "fastapi_cloudflare_access"]
    assert [record.getMessage() for record in records] == [
        f"cf-access refused {method} {BEFORE_ROUTING}: cross_origin ({why}), token none"
        for method, why in (
            ("POST", "the Origin is none of the configured ones"),
            ("WEBSOCKET", "Sec-Fetch-Site names another site"),
            ("?", "there is more than one Origin header"),
        )
    ]
    assert {record.levelno for record in records} == {logging.WARNING}
    assert {record.__dict__["reason"] for record in records} == {"cross_origin"}


async def answer_with(status: int, request: Request, refused: Exception) -> PlainTextResponse:
    return PlainTextResponse("no", status)


def posting(application: Any) -> Any:
    headers = {"origin": "https://evil.example"}
    return TestClient(application).post("/", headers=headers)


def test_the_exception_handler_of_the_app_answers_a_refusal() -> None:
    application = FastAPI()
    application.add_middleware(SameOrigin, origins=OWN)

    @application.exception_handler(AccessHTTPException)
    def handler(request: Request, refused: AccessHTTPException) -> PlainTextResponse:
        return PlainTextResponse(refused.error.reason, 418)

    assert (posting(application).status_code, posting(application).text) == (418, "cross_origin")


def test_the_handler_of_a_mounted_app_answers_its_refusal() -> None:
    inner, application = FastAPI(), FastAPI()
    for each, status in ((inner, 418), (application, 599)):
        each.add_exception_handler(AccessHTTPException, partial(answer_with, status))
    application.mount("/fastapi", SameOrigin(SameOrigin(inner, origins=OWN), origins=OWN))
    application.mount("/asgi", SameOrigin(app, origins=OWN))
    client = TestClient(application)
    statuses = [client.post(path, headers={"origin": "null"}).status_code for path in ("/fastapi/", "/asgi/")]
    assert statuses == [418, 599]


@pytest.mark.parametrize("kind", [Exception, 500, 404])
def test_a_handler_of_unexpected_errors_does_not_answer_a_refusal(kind: Any) -> None:
    application = Starlette(exception_handlers={kind: lambda request, error: PlainTextResponse("oops", 500)})
    application.add_middleware(SameOrigin, origins=OWN)
    assert posting(application).status_code == 403


def test_it_protects_a_mounted_app_and_what_no_route_serves() -> None:
    application = FastAPI()
    inner = FastAPI()
    inner.add_api_route("/", lambda: pytest.fail("it ran"), methods=["POST"])
    application.mount("/inner", inner)
    application.add_middleware(SameOrigin, origins=OWN)
    client = TestClient(application)
    for path in ("/inner/", "/nothing", "/docs"):
        assert client.post(path, headers={"origin": "null"}).status_code == 403


def test_it_protects_one_mounted_app_alone() -> None:
    application = FastAPI()
    application.add_api_route("/", lambda: "ok", methods=["POST"])
    application.mount("/inner", SameOrigin(FastAPI(), origins=OWN))
    client = TestClient(application)
    statuses = [client.post(path, headers={"origin": "null"}).status_code for path in ("/", "/inner/")]
    assert statuses == [200, 403]


# the configuration


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("given", "sent_by_browsers"),
    [
        ("https://app.example.com", "https://app.example.com"),
        (" HTTPS://App.Example.com/ ", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("https://app.example.com:4430", "https://app.example.com:4430"),
        ("http://localhost:8787", "http://localhost:8787"),
        ("http://[::1]:8787", "http://[::1]:8787"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
async def test_an_origin_is_compared_as_browsers_send_it(given: str, sent_by_browsers: str) -> None:
    for origins in (given, [given], (given,), {given}, frozenset({given})):
        middleware = SameOrigin(app, origins=origins)  # type: ignore[arg-type]
        scope = scope_of("websocket", origin(sent_by_browsers))
        assert await sent(scope, middleware) == [{"type": "it ran"}]


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "",
            " ",
            "null",
            "*",
            "https://",
            "https://*",
            "https://*.example.com",
            "app.example.com",
            "//app.example.com",
        ),
        *(
            "ftp://app.example.com",
            "https://app.example.com/x",
            "https://app.example.com//",
            "https://app.example.com?",
        ),
        *(
            "https://app.example.com#",
            "https://u@app.example.com",
            "https://app.example.com:0",
            "https://b\u00fc.example",
        ),
        *(
            "https://app.example.com.",
            "https://app.example.com:99999",
            "https://a.example,https://b.example",
            "https:///",
        ),
        *(None, 1, [], (), {}, [None], [1], [OWN, "null"], [[OWN]], b"https://app.example.com", object()),
    ],
)
def test_a_wrong_origin_is_an_error_that_says_what_to_write(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"origins must be .+ such as \[?'https://app\.example\.com'\]?$"):
        SameOrigin(app, origins=wrong)


def test_an_app_with_a_wrong_origin_does_not_start() -> None:
    application = FastAPI()
    application.add_middleware(SameOrigin, origins=["*"])
    with pytest.raises(ConfigurationError, match="origins must be"), TestClient(application):
        pass


@pytest.mark.parametrize("dependency", [SameOrigin, SameOrigin(app, origins=OWN)], ids=["class", "object"])
def test_it_is_not_a_dependency(dependency: Any) -> None:
    for add in (FastAPI().add_api_route, APIRouter().add_api_route):
        with pytest.raises(ConfigurationError, match=r"^SameOrigin is middleware: write app\.add_middleware\(SameOrig"):
            add("/", lambda: "ok", dependencies=[Depends(dependency)])


@pytest.mark.parametrize("app", [None, "app", FastAPI, CloudflareAccess(team_domain="acme", audience="1" * 64)])
def test_what_it_protects_must_be_an_app(app: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^SameOrigin is middleware: write app\.add_middleware"):
        SameOrigin(app, origins=["https://app.example.com"])
