"""The answer table over real sockets: each row by status, headers, body and log record."""

import logging
from collections.abc import Iterator

import httpx
import pytest
from support.answer_servers import SERVERS
from support.answer_table import (
    ANSWERS,
    HEADER,
    ROWS,
    Headers,
    Rig,
    Row,
    ada,
    bot,
    cookie,
    digest,
    header,
    rig,
    secrets,
)

from fastapi_cloudflare_access.testing import FORGERIES

LOGGER = "fastapi_cloudflare_access"


@pytest.fixture(scope="module")
def table() -> Iterator[Rig]:
    with rig() as table:
        yield table


@pytest.fixture(scope="module", params=["uvicorn-h11", "uvicorn-httptools"])
def client(request: pytest.FixtureRequest, table: Rig) -> Iterator[httpx.Client]:
    with (
        SERVERS[request.param](table.app) as address,
        httpx.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_refused_request_gets_the_answer_of_its_row(client: httpx.Client, table: Rig, row: Row) -> None:
    response = client.get(row.path, headers=table.headers(row))
    assert response.status_code == row.answer.status
    assert response.json() == {"detail": row.answer.detail}
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get_list("www-authenticate") == ([row.answer.challenge] if row.answer.challenge else [])
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["vary"] == "Cf-Access-Jwt-Assertion, Cookie"
    assert ("retry-after" in response.headers) == (row.answer.status == 503)
    assert int(response.headers.get("retry-after", 1)) >= 1


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_refusal_leaves_one_record_with_reason_and_digest_and_never_the_token(
    client: httpx.Client, table: Rig, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    headers = table.headers(row)
    response = client.get(row.path, headers=headers)
    refusals = [record for record in caplog.records if hasattr(record, "reason")]
    assert [record.__dict__["reason"] for record in refusals] == [row.reason]
    assert refusals[0].__dict__["token_digest"] == (digest(headers) if row.has_digest else None)
    assert refusals[0].levelno == (logging.INFO if row.reason == "missing_token" else logging.WARNING)
    said = [repr(vars(record)) for record in caplog.records if record.name.startswith(LOGGER)]
    said += [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    said += [response.text, repr(response.headers)]
    assert [secret for secret in secrets(headers) if any(secret in text for text in said)] == []


def test_the_table_has_every_reason_that_a_request_can_have() -> None:
    assert {row.reason for row in ROWS} == set(ANSWERS)
    assert {forgery.name for forgery in FORGERIES.values()} <= {row.name for row in ROWS}


@pytest.mark.parametrize("path", ["/access", "/optional", "/user", "/service"])
@pytest.mark.parametrize("carried", [header, cookie], ids=["header", "cookie"])
def test_a_good_token_is_let_in_and_nothing_is_logged_of_it(
    client: httpx.Client, table: Rig, path: str, carried: type, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    response = client.get(path, headers=carried(bot if path == "/service" else ada)(table.team))
    assert (response.status_code, response.json()) == (200, "let in")
    # A key fetch that an earlier request caused may end now, in the logger below this one.
    assert [record for record in caplog.records if record.name == LOGGER] == []


def test_without_a_token_the_optional_caller_is_none(client: httpx.Client) -> None:
    assert client.get("/optional").json() == "let in"


def test_the_cookie_is_not_looked_at_beside_a_header(client: httpx.Client, table: Rig) -> None:
    """Through the edge the header is always there, and any site below the same domain can plant a cookie."""
    planted: Headers = [(HEADER, ada(table.team)), ("Cookie", "CF_Authorization=a; CF_Authorization=b")]
    assert client.get("/user", headers=planted).status_code == 200


def test_a_token_that_could_not_pass_anyway_causes_no_fetch(client: httpx.Client, table: Rig) -> None:
    before = table.certs.fetches
    for name in ("unknown_kid_expired", "other_team"):
        assert client.get("/access", headers={HEADER: table.team.forge(name)}).status_code == 401
    assert table.certs.fetches == before
