"""One question to get-identity: which answers count, whose identity they are of, and which ones mean an outage."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastapi_cloudflare_access._identity.document import WrongAnswer, ask
from fastapi_cloudflare_access._keys.document import FetchProblem
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.protocols import FetchResponse

pytestmark = pytest.mark.anyio

ADA = "5c1b0d5c-0000-4000-8000-00000000000a"
URL = "https://acme.cloudflareaccess.com/cdn-cgi/access/get-identity"


async def asked(status: int, content: bytes | dict[str, Any]) -> tuple[Identity | None, int]:
    """What the question about Ada returns."""

    async def body() -> AsyncIterator[bytes]:
        yield content if isinstance(content, bytes) else json.dumps(content).encode()

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncIterator[FetchResponse]:
        assert (url, headers["Cookie"]) == (URL, "CF_Authorization=a.b.c")
        yield FetchResponse(status, {}, body())

    return await ask(fetch, URL, b"a.b.c", user_id=ADA)


def padded(size: int) -> bytes:
    """An identity of so many bytes."""
    document = {"user_uuid": ADA, "padding": ""}
    return json.dumps(document | {"padding": "x" * (size - len(json.dumps(document)))}).encode()


@pytest.mark.parametrize("user_id", ["", "!", ADA[:-1], f"{ADA[:-1]}9", f"{ADA[:-1]}b", f"{ADA}a", ADA.upper(), "~"])
async def test_the_identity_of_any_other_user_is_refused_wherever_their_ids_sort(user_id: str) -> None:
    with pytest.raises(WrongAnswer, match=r"^the identity is not the one of the token's user$"):
        await asked(200, {"user_uuid": user_id, "groups": ["admins"]})


@pytest.mark.parametrize("error", ["", "a", "no app token se", "no app token set!", "No app token set", "unknown", "~"])
async def test_only_the_words_of_the_documented_refusal_mean_that_there_is_no_session(error: str) -> None:
    assert await asked(400, {"err": "no app token set"}) == (None, 27)
    with pytest.raises(WrongAnswer, match=r"^a response with HTTP status 400 that is not documented$"):
        await asked(400, {"err": error})


async def test_a_document_of_64_kib_is_read_and_a_longer_one_is_not() -> None:
    identity, size = await asked(200, padded(65_536))
    assert (identity and identity.user_uuid, size) == (ADA, 65_536)
    with pytest.raises(WrongAnswer, match=r"^the document is longer than 65536 bytes$"):
        await asked(200, padded(65_537))


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 520, 530, 599])
async def test_a_server_that_fails_or_has_too_much_to_do_is_an_outage(status: int) -> None:
    with pytest.raises(FetchProblem, match=f"^a response with HTTP status {status}$") as raised:
        await asked(status, b"")
    assert type(raised.value) is FetchProblem


@pytest.mark.parametrize("status", [100, 199, 201, 204, 302, 399, 401, 403, 404, 428, 430, 431, 451, 499])
async def test_any_other_status_is_the_answer_to_one_user_and_no_outage(status: int) -> None:
    with pytest.raises(WrongAnswer, match=f"^a response with HTTP status {status}$"):
        await asked(status, {"user_uuid": ADA})


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"null", b'{"a":1,"a":1}', b"\xff"])
async def test_a_malformed_document_is_the_answer_to_one_user_and_no_outage(status: int, content: bytes) -> None:
    with pytest.raises(WrongAnswer, match=r"^the document is malformed: "):
        await asked(status, content)
