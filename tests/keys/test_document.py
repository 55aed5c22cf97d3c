"""The limits that hold for every fetch, and the words for a failed one."""

import errno
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from unittest.mock import patch

import pytest

from fastapi_cloudflare_access._keys import document
from fastapi_cloudflare_access._keys.document import (
    Document,
    FetchProblem,
    describe,
    read_document,
)
from fastapi_cloudflare_access.protocols import Fetch, FetchResponse

pytestmark = pytest.mark.anyio

URL = "https://acme.cloudflareaccess.com/cdn-cgi/access/certs"


def answer(
    *pieces: bytes, status: int = 200, headers: Mapping[str, str] | None = None, seen: dict[str, str] | None = None
) -> Fetch:
    """A fetch that brings this answer."""

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        if seen is not None:
            seen.update(headers)

        async def body() -> AsyncGenerator[bytes]:
            for piece in pieces:
                yield piece

        yield FetchResponse(status, answered, body())

    answered = dict(headers or {})
    return fetch


async def read(fetch: Fetch, *, etag: str | None = None, no_cache: bool = False) -> Document:
    with patch.object(document, "MAX_DOCUMENT", 100):
        return await read_document(fetch, URL, etag=etag, no_cache=no_cache)


async def test_a_good_answer_is_read_piece_by_piece() -> None:
    document = await read(answer(b'{"a"', b":1}", headers={"etag": '"v1"', "cache-control": "max-age=300"}))
    assert document == Document(b'{"a":1}', '"v1"', 300.0)


async def test_who_asks_is_said_and_nothing_encoded_is_asked_for() -> None:
    seen: dict[str, str] = {}
    await read(answer(b"{}", seen=seen))
    assert re.fullmatch(r"fastapi-cloudflare-access/\d+\.\d+\.\d+\S*", seen.pop("User-Agent"))
    assert seen == {"Accept": "application/json", "Accept-Encoding": "identity"}


async def test_a_forced_fetch_passes_caches_by_and_a_conditional_one_names_what_it_has() -> None:
    seen: dict[str, str] = {}
    await read(answer(b"{}", seen=seen), etag='"v1"', no_cache=True)
    assert seen["Cache-Control"] == "no-cache"
    assert seen["If-None-Match"] == '"v1"'


async def test_304_is_the_document_we_have() -> None:
    fetch = answer(status=304, headers={"cache-control": "max-age=90"})
    assert await read(fetch, etag='"v1"') == Document(None, '"v1"', 90.0)


async def test_304_without_having_asked_for_it_is_refused() -> None:
    with pytest.raises(FetchProblem, match="304"):
        await read(answer(status=304))


@pytest.mark.conformance(19, 20)
@pytest.mark.parametrize("status", [100, 201, 204, 206, 301, 302, 307, 400, 403, 404, 429, 500, 503, 520])
async def test_only_200_is_taken(status: int) -> None:
    with pytest.raises(FetchProblem, match=str(status)):
        await read(answer(b"{}", status=status))


async def test_a_redirect_is_called_one() -> None:
    with pytest.raises(FetchProblem, match="redirects are not followed"):
        await read(answer(status=302, headers={"location": "https://evil.example/"}))


@pytest.mark.conformance(19)
@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", ""])
async def test_an_encoded_answer_is_refused(encoding: str) -> None:
    with pytest.raises(FetchProblem, match="content encoding"):
        await read(answer(b"{}", headers={"content-encoding": encoding}))


async def test_identity_is_no_encoding() -> None:
    assert (await read(answer(b"{}", headers={"content-encoding": "Identity"}))).body == b"{}"


@pytest.mark.parametrize("length", ["101", "9" * 18, "9" * 5000, "-1", "1e2", "", "\u0661"])
async def test_an_announced_length_that_is_too_much_or_no_number_is_refused_before_reading(length: str) -> None:
    with pytest.raises(FetchProblem, match="longer than 100"):
        await read(answer(b"{}", headers={"content-length": length}))


@pytest.mark.conformance(19, 20)
async def test_a_body_is_refused_as_soon_as_it_is_longer_than_allowed() -> None:
    pulled: list[int] = []

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        async def body() -> AsyncGenerator[bytes]:
            for number in range(1000):
                pulled.append(number)
                yield bytes(10)

        yield FetchResponse(200, {"content-length": "20"}, body())

    with pytest.raises(FetchProblem, match="longer than 100"):
        await read(fetch)
    assert len(pulled) == 11


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert len((await read(answer(bytes(60), bytes(40)))).body or b"") == 100


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"cache-control": "public, max-age=120"}, 120),
        ({"cache-control": 'Max-Age = "120", public'}, 120),
        ({"cache-control": "max-age=120", "age": "50"}, 70),
        ({"cache-control": "max-age=120", "age": "500"}, 0),
        ({"cache-control": "max-age=120", "age": "soon"}, 120),
        ({"cache-control": "max-age=0"}, None),
        ({"cache-control": "max-age=-5"}, None),
        ({"cache-control": "max-age=1e3"}, None),
        ({"cache-control": "max-age=" + "9" * 30}, None),
        ({"cache-control": "s-maxage=60"}, None),
        ({"cache-control": "x-max-age=60"}, None),
        ({"cache-control": "max-age=60, no-store"}, None),
        ({"cache-control": "no-cache=x, max-age=60"}, None),
        ({"cache-control": " " * 5000 + "max-age=60"}, None),
    ],
)
async def test_how_long_an_answer_is_fresh(headers: dict[str, str], expected: float | None) -> None:
    assert (await read(answer(b"{}", headers=headers))).max_age == expected


@pytest.mark.parametrize(
    ("etag", "kept"),
    [
        ('"v1"', True),
        ('W/"v1"', True),
        ('""', True),
        ("v1", False),
        ('"a\r\nX: y"', False),
        ('"ü"', False),
        (f'"{"x" * 300}"', False),
    ],
    ids=str,
)
async def test_only_a_well_formed_etag_is_kept(etag: str, *, kept: bool) -> None:
    assert (await read(answer(b"{}", headers={"etag": etag}))).etag == (etag if kept else None)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (FetchProblem("a response with HTTP status 503"), "a response with HTTP status 503"),
        (TimeoutError("secret"), "no response in time"),
        (ConnectionError("secret"), "the connection failed or was lost"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "secret"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "secret"), "the host name was not found"),
        (ssl.SSLError("secret"), "TLS failed: SSLError"),
        (ValueError("secret"), "the fetch failed with ValueError"),
        (ExceptionGroup("secret", [ValueError("secret")]), "the fetch failed with ExceptionGroup"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_cause_is_described_without_a_word_from_outside(
    problem: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert describe(problem) == words


async def test_a_chain_of_causes_that_bites_its_tail_is_described() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert describe(first) == "the fetch failed with ValueError"


def test_tls_that_fails_names_the_variable_with_the_ca_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "ca.pem")
    assert (
        describe(ssl.SSLError("x")) == "TLS failed: SSLError; SSL_CERT_FILE names the CA certificates that are trusted"
    )


def test_an_error_number_that_no_system_has_is_described() -> None:
    assert describe(OSError(2**40, "secret")) == "an unknown system error"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "600"}, 600),
        ({"retry-after": " 5 "}, 5),
        ({"retry-after": "Wed, 01 Jan 2025 00:10:00 GMT", "date": "Wed, 01 Jan 2025 00:00:00 GMT"}, 600),
        ({"retry-after": "Wed, 01 Jan 2025 00:00:00 GMT", "date": "Wed, 01 Jan 2025 00:10:00 GMT"}, 0),
        ({"retry-after": "Wed, 01 Jan 2025 00:10:00 GMT"}, 0),
        ({"retry-after": "Wed, 01 Jan 2025 00:10:00 -0000", "date": "Wed, 01 Jan 2025 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "1.5"}, 0),
        ({"retry-after": "9" * 19}, 0),
        ({"retry-after": "\u0661\u0660"}, 0),
    ],
)
async def test_a_failed_fetch_carries_the_seconds_of_retry_after(headers: dict[str, str], seconds: float) -> None:
    with pytest.raises(FetchProblem, match="HTTP status 429") as failed:
        await read(answer(status=429, headers=headers))
    assert failed.value.retry_after == seconds
