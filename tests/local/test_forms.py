"""Forms and JSON bodies have a limit."""

from collections.abc import AsyncIterator

import pytest

from fastapi_cloudflare_access.local.forms import MAX_BODY, read_form, read_json

pytestmark = pytest.mark.anyio


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_form_is_read_from_chunks() -> None:
    assert await read_form(chunks(b"a=1&b=", b"%C3%BC&c=")) == {"a": "1", "b": "ü", "c": ""}


async def test_a_form_that_is_too_long_or_has_too_many_fields_is_empty() -> None:
    assert await read_form(chunks(b"a=" + b"x" * MAX_BODY)) == {}
    assert await read_form(chunks(b"a&" * 60)) == {}


@pytest.mark.parametrize(
    ("body", "value"),
    [(b"", {}), (b'{"a":1}', {"a": 1}), (b"[]", None), (b"{", None), (b"\xff", None), (b"[" * 16_000, None)],
    ids=["empty", "object", "list", "broken", "bytes", "deep"],
)  # fmt: skip
async def test_json_that_is_not_an_object_is_none(body: bytes, value: object) -> None:
    assert await read_json(chunks(body)) == value
