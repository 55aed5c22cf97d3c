"""Refusals as problem details: the body of RFC 9457, with the status and the headers of the contract."""

from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Annotated, Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from openapi_spec_validator import validate
from pydantic import AfterValidator, BaseModel, ConfigDict
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_cloudflare_access import (
    AccessHTTPException,
    AccessWebSocketException,
    CloudflareAccess,
    ConfigurationError,
    UserClaims,
)
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.errors import MissingToken
from fastapi_cloudflare_access.problems import problem_details, problem_responses
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

access = CloudflareAccess(team_domain="acme", audience=FakeTeam().audience)
CurrentUser = Annotated[UserClaims, Depends(access.user)]


async def me(user: CurrentUser) -> str | None:
    return user.email


async def ok() -> str:
    return "ok"


async def feed(socket: WebSocket, user: CurrentUser) -> None:
    await socket.accept()
    await socket.close()


def make_app(handled: Any = AccessHTTPException) -> FastAPI:
    app = FastAPI()
    app.add_exception_handler(handled, problem_details)
    router = APIRouter(prefix="/v1", responses=problem_responses())
    router.add_api_route("/me", me)
    app.include_router(router)
    app.add_api_websocket_route("/feed", feed)
    return app


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam("acme")


@pytest.fixture
def client(team: FakeTeam) -> Iterator[TestClient]:
    app, inner = make_app(), make_app()
    app.mount("/inner", inner)
    app.mount("/plain", FastAPI(routes=inner.routes))
    app.add_middleware(SameOrigin, origins="https://app.example.com")
    with team.patch(access), TestClient(app) as client:
        yield client


def problem(status: int, title: str, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


@pytest.mark.parametrize("prefix", ["", "/inner"])
def test_a_refusal_keeps_its_status_and_headers(team: FakeTeam, client: TestClient, prefix: str) -> None:
    refused = client.get(f"{prefix}/v1/me")
    assert refused.json() == problem(401, "Unauthorized", "No Cloudflare Access token")
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    plain = client.get("/plain/v1/me")
    assert plain.json() == {"detail": "No Cloudflare Access token"}
    kept = {"www-authenticate", "cache-control", "vary"}
    assert {name: refused.headers[name] for name in kept} == {name: plain.headers[name] for name in kept}


def test_every_class_of_refusal_has_a_problem(team: FakeTeam, client: TestClient) -> None:
    expired, service = team.forge("expired"), team.service_token("backup")
    for token, expected, challenge in (
        (expired, problem(401, "Unauthorized", "The Cloudflare Access token has expired"), "invalid_token"),
        ("x", problem(401, "Unauthorized", "The Cloudflare Access token is malformed"), "invalid_token"),
        (service, problem(403, "Forbidden", "This caller is not allowed here"), "insufficient_scope"),
    ):
        refused = client.get("/v1/me", headers={"Cf-Access-Jwt-Assertion": token})
        assert (refused.status_code, refused.json()) == (expected["status"], expected)
        assert f'error="{challenge}"' in refused.headers["www-authenticate"]
        assert token not in refused.text + str(refused.headers) or token == "x"


def test_an_outage_keeps_when_to_try_again(team: FakeTeam) -> None:
    fetch = MemoryFetch(team)
    fetch.refuse()
    cold = CloudflareAccess(team_domain="acme", audience=team.audience, fetch=fetch, clock=team.clock)
    app = FastAPI()
    app.add_exception_handler(AccessHTTPException, problem_details)
    app.add_api_route("/", ok, dependencies=[Depends(cold)])
    refused = TestClient(app).get("/", headers=team.headers(team.user("ada@example.com")))
    assert (refused.status_code, refused.json()["title"]) == (503, "Service Unavailable")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("prefix", ["", "/inner"])
def test_a_refused_handshake_gets_a_problem(client: TestClient, prefix: str) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(f"{prefix}/feed"):
        pytest.fail("let in")
    assert refused.value.json() == problem(401, "Unauthorized", "No Cloudflare Access token")
    assert refused.value.headers["content-type"] == "application/problem+json"


def test_a_refusal_of_middleware_is_a_problem(client: TestClient) -> None:
    refused = client.post("/nothing", headers={"origin": "null"})
    assert refused.json() == problem(403, "Forbidden", "A page of another origin sent this request")
    assert refused.headers["vary"] == "Origin, Sec-Fetch-Site"


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (HTTPException(404, "no such item"), problem(404, "Not Found", "no such item")),
        (HTTPException(404, ["a", "list"]), {"type": "about:blank", "title": "Not Found", "status": 404}),
        (HTTPException(499, "a status without a name"), problem(499, "Error", "a status without a name")),
        (HTTPException(304), None),
    ],
)
def test_other_http_errors_can_be_problems_too(error: HTTPException, body: Any) -> None:
    app = FastAPI()
    app.add_exception_handler(HTTPException, problem_details)

    @app.get("/")
    async def route() -> None:
        raise error

    response = TestClient(app).get("/")
    assert response.status_code == error.status_code
    assert (response.json() if response.content else None) == body


def test_what_is_no_http_error_is_not_answered() -> None:
    app = make_app(AccessWebSocketException)

    @app.get("/")
    async def route() -> None:
        raise AccessWebSocketException(MissingToken("there is no token"))

    with pytest.raises(ConfigurationError, match=r"write app\.add_exception_handler\(AccessHTTPException, problem_det"):
        TestClient(app).get("/")


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int
    kind: Literal["lamp"] = "lamp"


def not_this(text: str) -> str:
    raise ValueError("this is not one")


SECRET = "eyJhbGciOiJSUzI1NiJ9.e30.c2VjcmV0"


def validating_app() -> FastAPI:
    app = FastAPI()
    app.add_exception_handler(RequestValidationError, problem_details)

    @app.post("/items")
    async def add(item: Item, token: Annotated[str, Header(), AfterValidator(not_this)] = "") -> None: ...

    return app


def test_a_request_that_is_not_valid_gets_a_problem_without_its_input() -> None:
    body = {"number": SECRET, "kind": SECRET}
    refused = TestClient(validating_app()).post("/items", json=body, headers={"token": SECRET})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    found = refused.json()
    assert (found["type"], found["title"], found["status"]) == ("about:blank", HTTPStatus(422).phrase, 422)
    places = {tuple(error["loc"]): error["type"] for error in found["errors"]}
    assert places == {
        ("header", "token"): "value_error",
        ("body", "number"): "int_parsing",
        ("body", "kind"): "literal_error",
    }
    assert {name for error in found["errors"] for name in error} == {"type", "loc", "msg"}
    assert SECRET not in refused.text


class Shade(BaseModel):
    kind: Literal["shade"]


class Bulb(BaseModel):
    kind: Literal["bulb"]


def test_a_tag_that_no_model_has_is_not_sent_back() -> None:
    app = FastAPI()
    app.add_exception_handler(RequestValidationError, problem_details)

    @app.post("/parts")
    async def add(part: Annotated[Shade | Bulb, Body(discriminator="kind")]) -> None: ...

    refused = TestClient(app).post("/parts", json={"kind": SECRET})
    expected = {"type": "union_tag_invalid", "loc": ["body"], "msg": "Input tag is none of the expected tags"}
    assert (refused.status_code, refused.json()["errors"]) == (422, [expected])


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        ("too late", {"type": "value_error", "loc": [], "msg": "too late"}),
        ({"msg": "too late"}, {"type": "value_error", "loc": [], "msg": "too late"}),
        ({"loc": "day", "type": "late"}, {"type": "late", "loc": ["day"], "msg": ""}),
        ({"loc": ["days", 1], "type": "late", "msg": None}, {"type": "late", "loc": ["days", 1], "msg": "None"}),
    ],
)
def test_an_error_that_an_app_raises_in_another_form_is_no_crash(raised: Any, error: dict[str, Any]) -> None:
    app = FastAPI()
    app.add_exception_handler(RequestValidationError, problem_details)

    @app.get("/")
    async def late() -> None:
        raise RequestValidationError([raised])

    refused = TestClient(app).get("/")
    assert (refused.status_code, refused.json()["errors"]) == (422, [error])


@pytest.mark.parametrize("body", [b"{", b"[]", b'"' + b"x" * 10 + b'"', b'{"\\ud800": 1}', b"\xff"], ids=range(5))
def test_a_hostile_body_gets_a_problem_too(body: bytes) -> None:
    headers = {"content-type": "application/json"}
    refused = TestClient(validating_app()).post("/items", content=body, headers=headers)
    assert refused.status_code in {400, 422}
    assert refused.status_code == 400 or refused.json()["errors"]


def test_a_problem_has_a_hundred_errors_at_most_and_names_of_a_thousand_characters() -> None:
    body = {"x" * 5000 + str(number): 1 for number in range(300)}
    found = TestClient(validating_app()).post("/items", json=body).json()
    assert len(found["errors"]) == 100
    assert max(len(part) for error in found["errors"] for part in error["loc"]) == 1000


def test_a_crash_is_a_problem_without_its_text_and_reaches_the_server() -> None:
    app = FastAPI()
    app.add_exception_handler(Exception, problem_details)

    @app.get("/")
    async def crash() -> None:
        raise LookupError(SECRET)

    crashed = TestClient(app, raise_server_exceptions=False).get("/")
    assert crashed.json() == {"type": "about:blank", "title": "Internal Server Error", "status": 500}
    assert crashed.headers["content-type"] == "application/problem+json"
    with pytest.raises(LookupError):
        TestClient(app).get("/")


def test_a_stream_that_crashes_after_its_start_is_cut_and_not_answered_again() -> None:
    app = FastAPI()
    app.add_exception_handler(Exception, problem_details)

    async def crash() -> AsyncIterator[str]:
        yield "begun"
        raise LookupError(SECRET)

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(crash())

    response = TestClient(app, raise_server_exceptions=False).get("/")
    assert (response.status_code, response.text) == (200, "begun")


@pytest.mark.anyio
async def test_a_server_that_can_only_close_a_handshake_closes_it() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/feed", "query_string": b"", "headers": [], "subprotocols": []}
    with FakeTeam("acme").patch(access):
        await make_app()(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "No Cloudflare Access token"}]


# OpenAPI


def test_openapi_shows_the_problems() -> None:
    schema = make_app().openapi()
    validate(schema)
    responses = schema["paths"]["/v1/me"]["get"]["responses"]
    assert {status for status in responses if status != "200"} == {"401", "403", "503"}
    for status, header in (("401", "WWW-Authenticate"), ("403", "WWW-Authenticate"), ("503", "Retry-After")):
        assert [*responses[status]["content"]] == ["application/problem+json"]
        assert header in responses[status]["headers"]


def test_each_call_makes_responses_of_its_own() -> None:
    problem_responses()[401]["content"].clear()
    assert problem_responses()[401]["content"]
    assert "application/json" in access.responses[401]["content"]


def test_a_body_fits_what_openapi_says(client: TestClient) -> None:
    schema = make_app().openapi()["paths"]["/v1/me"]["get"]["responses"]["401"]["content"]
    jsonschema.validate(client.get("/v1/me").json(), schema["application/problem+json"]["schema"])
