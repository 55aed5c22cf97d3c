"""What the client is told: the table of the contract, row by row."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from fastapi_cloudflare_access import AccessHTTPException, AccessWebSocketException, CloudflareAccess, errors
from fastapi_cloudflare_access._logging import Place
from fastapi_cloudflare_access._requests.responses import log_refusal, to_exception

NOT_ACCEPTABLE = (
    'Cloudflare-Access error="invalid_token", error_description="The Cloudflare Access token is not acceptable"'
)
NOT_ALLOWED = 'Cloudflare-Access error="insufficient_scope"'

TABLE: list[tuple[type[errors.AccessError], str, int, str | None]] = [
    (errors.MissingToken, "missing_token", 401, "Cloudflare-Access"),
    (
        errors.AmbiguousToken,
        "ambiguous_token",
        401,
        'Cloudflare-Access error="invalid_request", error_description="More than one Cloudflare Access token"',
    ),
    (
        errors.MalformedToken,
        "malformed_token",
        401,
        'Cloudflare-Access error="invalid_token", error_description="The Cloudflare Access token is malformed"',
    ),
    (errors.UnsupportedAlgorithm, "unsupported_algorithm", 401, NOT_ACCEPTABLE),
    (errors.UnknownKey, "unknown_key", 401, NOT_ACCEPTABLE),
    (errors.InvalidSignature, "invalid_signature", 401, NOT_ACCEPTABLE),
    (errors.InvalidClaims, "invalid_claims", 401, NOT_ACCEPTABLE),
    (errors.WrongIssuer, "wrong_issuer", 401, NOT_ACCEPTABLE),
    (errors.WrongAudience, "wrong_audience", 401, NOT_ACCEPTABLE),
    (errors.WrongType, "wrong_type", 401, NOT_ACCEPTABLE),
    (
        errors.TokenExpired,
        "token_expired",
        401,
        'Cloudflare-Access error="invalid_token", error_description="The Cloudflare Access token has expired"',
    ),
    (errors.TokenNotYetValid, "token_not_yet_valid", 401, NOT_ACCEPTABLE),
    (errors.TokenRevoked, "token_revoked", 401, NOT_ACCEPTABLE),
    (errors.WrongCallerType, "wrong_caller", 403, NOT_ALLOWED),
    (errors.PolicyDenied, "forbidden", 403, NOT_ALLOWED),
    (errors.CrossOriginRequest, "cross_origin", 403, None),
    (errors.KeysUnavailable, "keys_unavailable", 503, None),
    (errors.KeyUnconfirmed, "key_unconfirmed", 503, None),
    (errors.IdentityUnavailable, "identity_unavailable", 503, None),
    (errors.RevocationsUnavailable, "revocations_unavailable", 503, None),
]


def leaves(kind: type[errors.AccessError]) -> Iterator[type[errors.AccessError]]:
    for sub in kind.__subclasses__():
        yield from leaves(sub)
    if not kind.__subclasses__():
        yield kind


def connection(kind: str = "http", **more: Any) -> HTTPConnection:
    return HTTPConnection({"type": kind, "headers": [], **more})


def test_the_table_has_a_row_for_every_error() -> None:
    known = {kind for kind in leaves(errors.AccessError) if not issubclass(kind, errors.ConfigurationError)}
    assert {row[0] for row in TABLE} == known


@pytest.mark.conformance(40, 41, 42, 43, 44, 46)
@pytest.mark.parametrize(("kind", "reason", "status", "challenge"), TABLE, ids=[row[1] for row in TABLE])
def test_an_error_gives_its_reason_its_status_and_its_challenge(
    kind: type[errors.AccessError], reason: str, status: int, challenge: str | None
) -> None:
    error = kind("why")
    refused = to_exception(error, connection(), auth_scheme="Cloudflare-Access")
    assert isinstance(refused, AccessHTTPException)
    headers = dict(refused.headers or {})
    assert (refused.error, refused.error.reason, refused.status_code) == (error, reason, status)
    assert headers.get("WWW-Authenticate") == challenge
    assert ("Retry-After" in headers) == (status == 503)
    assert headers["Cache-Control"] == "no-store"
    read = "Origin, Sec-Fetch-Site" if kind is errors.CrossOriginRequest else "Cf-Access-Jwt-Assertion, Cookie"
    assert headers["Vary"] == read
    assert "why" not in str(refused.detail)
    assert reason not in str(refused.detail)


@pytest.mark.conformance(44)
@pytest.mark.parametrize(("seconds", "header"), [(0, "1"), (0.2, "1"), (1, "1"), (1.2, "2"), (60, "60")])
def test_retry_after_is_in_whole_seconds_and_never_zero(seconds: float, header: str) -> None:
    refused = to_exception(errors.KeyUnconfirmed("x", retry_after=seconds), connection(), auth_scheme="x")
    assert isinstance(refused, AccessHTTPException)
    assert (refused.headers or {})["Retry-After"] == header


def test_the_scheme_of_the_challenge_is_a_setting() -> None:
    refused = to_exception(errors.MissingToken("x"), connection(), auth_scheme="Bearer")
    assert isinstance(refused, AccessHTTPException)
    assert (refused.headers or {})["WWW-Authenticate"] == "Bearer"


@pytest.mark.conformance(41)
def test_no_client_learns_what_distinguishes_keys() -> None:
    """An unknown key, a wrong signature and a foreign audience look the same from outside."""
    answers = [
        to_exception(kind("x"), connection(), auth_scheme="x")
        for kind in (errors.UnknownKey, errors.InvalidSignature, errors.WrongAudience)
    ]
    assert len({(str(answer), str(getattr(answer, "headers", ""))) for answer in answers}) == 1


@pytest.mark.conformance(50)
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.MissingToken, 1008),
        (errors.PolicyDenied, 1008),
        (errors.KeysUnavailable, 1013),
        (errors.KeyUnconfirmed, 1013),
    ],
)
@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {}}], ids=["none", "null", "empty"])
def test_a_websocket_is_closed_where_the_server_cannot_answer_the_handshake(
    kind: type[errors.AccessError], code: int, extensions: dict[str, Any]
) -> None:
    refused = to_exception(kind("x"), connection("websocket", **extensions), auth_scheme="x")
    assert isinstance(refused, AccessWebSocketException)
    assert refused.code == code
    assert refused.error.reason == kind.reason
    assert 0 < len(refused.reason.encode()) <= 123


@pytest.mark.conformance(50)
def test_a_websocket_handshake_is_answered_where_the_server_can() -> None:
    refused = to_exception(
        errors.MissingToken("x"), connection("websocket", extensions={"websocket.http.response": {}}), auth_scheme="x"
    )
    assert isinstance(refused, AccessHTTPException)
    assert refused.status_code == 401


@pytest.mark.conformance(53, 54)
@pytest.mark.parametrize(
    ("error", "level"),
    [
        (errors.MissingToken("x"), logging.INFO),
        (errors.InvalidSignature("x"), logging.WARNING),
        (errors.PolicyDenied("x"), logging.WARNING),
        (errors.KeysUnavailable("x"), logging.WARNING),
    ],
)
def test_a_refusal_leaves_one_record_with_the_reason_and_the_digest(
    error: errors.AccessError, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    log_refusal(error, "3c469e9d6c58", Place("GET", "/items/{id}"))
    (record,) = caplog.records
    said = "x; try again in 1.0 s" if isinstance(error, errors.KeysUnavailable) else "x"
    assert (record.levelno, record.name) == (level, "fastapi_cloudflare_access")
    assert (record.__dict__["reason"], record.__dict__["token_digest"]) == (error.reason, "3c469e9d6c58")
    assert record.getMessage() == f"cf-access refused GET /items/{{id}}: {error.reason} ({said}), token 3c469e9d6c58"


@pytest.mark.conformance(45)
def test_a_failing_log_handler_changes_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError

    logger = logging.getLogger("fastapi_cloudflare_access")
    handler = Failing()
    logger.addHandler(handler)
    try:
        log_refusal(errors.InvalidSignature("x"), None, Place())
    finally:
        logger.removeHandler(handler)


@pytest.mark.conformance(46)
def test_the_app_can_answer_in_its_own_way() -> None:
    app = FastAPI()
    access = CloudflareAccess(team_domain="acme", audience="tag")

    @app.exception_handler(AccessHTTPException)
    async def answer(_: Request, refused: AccessHTTPException) -> JSONResponse:
        return JSONResponse({"type": refused.error.reason}, refused.status_code, refused.headers)

    app.add_api_route("/", lambda: None, dependencies=[Depends(access)])
    response = TestClient(app).get("/")
    assert (response.status_code, response.json()) == (401, {"type": "missing_token"})
    assert response.headers["www-authenticate"] == "Cloudflare-Access"
