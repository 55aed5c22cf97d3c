"""The certs endpoint in memory counts exactly, and every fault works on the clock of the test."""

import gzip
import re
from asyncio import create_task
from typing import Any

import pytest

from fastapi_cloudflare_access import ConfigurationError
from fastapi_cloudflare_access.protocols import Fetch
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

pytestmark = pytest.mark.anyio
URL = "https://acme.cloudflareaccess.com/cdn-cgi/access/certs"


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam("acme")


@pytest.fixture
def fetch(team: FakeTeam) -> MemoryFetch:
    return MemoryFetch(team)


async def get(fetch: Fetch, **headers: str) -> tuple[int, dict[str, str], bytes]:
    async with fetch(URL, headers={name.replace("_", "-"): value for name, value in headers.items()}) as response:
        return response.status, dict(response.headers), b"".join([piece async for piece in response.body])


async def test_it_serves_what_the_team_publishes(team: FakeTeam, fetch: MemoryFetch) -> None:
    body = team.certs_body()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    assert await get(fetch) == (200, headers, body)
    team.rotate()
    assert (await get(fetch))[2] == team.certs_body() != body


async def test_it_counts_and_records_fetches(team: FakeTeam, fetch: MemoryFetch) -> None:
    await get(fetch)
    team.clock.advance(5)
    await get(fetch, Cache_Control="no-cache")
    first, second = fetch.requests
    assert (fetch.fetches, first.url, second.headers, second.at - first.at) == (
        2,
        URL,
        {"cache-control": "no-cache"},
        5,
    )


async def test_correct_answers_have_the_given_headers(team: FakeTeam) -> None:
    fetch = MemoryFetch(team, headers={"cache-control": "max-age=60"})
    assert (await get(fetch))[1]["cache-control"] == "max-age=60"


async def test_with_an_etag_an_unchanged_document_is_not_sent_again(team: FakeTeam) -> None:
    fetch = MemoryFetch(team, etag=True)
    etag = (await get(fetch))[1]["etag"]
    unchanged = await get(fetch, If_None_Match=etag)
    team.rotate()
    changed = await get(fetch, If_None_Match=etag)
    assert (unchanged[0], unchanged[2], changed[0], changed[2]) == (304, b"", 200, team.certs_body())
    assert changed[1]["etag"] != etag


@pytest.mark.parametrize(
    ("fault", "arguments", "expected"),
    [
        ("fail_with", (500,), (500, "<!DOCTYPE")),
        ("fail_with", (), (503, "<!DOCTYPE")),
        ("html", (), (200, "<!DOCTYPE")),
        ("empty", (), (200, "")),
        ("no_keys", (), (200, '{"keys":[]')),
        ("garbage", (), (200, "\0")),
        ("redirect", ("https://evil.example/",), (302, "")),
        ("answer_with", (b"{}",), (200, "{}")),
    ],
)
async def test_wrong_answers(
    fetch: MemoryFetch, fault: str, arguments: tuple[object, ...], expected: tuple[int, str]
) -> None:
    getattr(fetch, fault)(*arguments)
    status, _, body = await get(fetch)
    assert (status, body.decode("latin-1").startswith(expected[1])) == (expected[0], True)
    assert bool(body) == bool(expected[1])


async def test_a_redirect_has_a_location(fetch: MemoryFetch) -> None:
    fetch.redirect("https://evil.example/")
    assert (await get(fetch))[1]["location"] == "https://evil.example/"


async def test_a_custom_answer_has_the_given_status_and_headers(fetch: MemoryFetch) -> None:
    fetch.answer_with(b"x", status=418, headers={"content-type": "text/plain"})
    assert await get(fetch) == (418, {"content-type": "text/plain", "content-length": "1"}, b"x")


async def test_an_oversized_answer_is_the_document_after_white_space_without_a_length(
    team: FakeTeam, fetch: MemoryFetch
) -> None:
    fetch.oversize(100_000)
    _, headers, body = await get(fetch)
    assert (len(body), body.strip(), "content-length" in headers) == (
        100_000 + len(team.certs_body()),
        team.certs_body(),
        False,
    )


async def test_a_gzip_bomb_is_small_until_it_is_unpacked(fetch: MemoryFetch) -> None:
    fetch.gzip_bomb(1_000_000)
    _, headers, body = await get(fetch)
    assert headers["content-encoding"] == "gzip"
    assert len(body) < 5_000 < len(gzip.decompress(body)) == 1_000_000


async def test_a_truncated_answer_is_shorter_than_its_content_length(team: FakeTeam, fetch: MemoryFetch) -> None:
    fetch.truncate()
    _, headers, body = await get(fetch)
    assert team.certs_body().startswith(body)
    assert len(body) < int(headers["content-length"])


@pytest.mark.parametrize("fault", ["reset", "refuse"])
async def test_a_broken_connection_is_a_connection_error(fetch: MemoryFetch, fault: str) -> None:
    getattr(fetch, fault)()
    with pytest.raises(ConnectionError):
        await get(fetch)
    assert fetch.fetches == 1


async def test_a_refused_fetch_has_no_answer_and_a_reset_one_begins(fetch: MemoryFetch) -> None:
    fetch.reset()
    async with fetch(URL, headers={}) as response:
        assert response.status == 200
    fetch.refuse()
    with pytest.raises(ConnectionError):
        async with fetch(URL, headers={}):
            pytest.fail("it has an answer")


@pytest.mark.parametrize("fault", ["hang", "stall"])
async def test_a_hang_never_ends(team: FakeTeam, fetch: MemoryFetch, fault: str) -> None:
    getattr(fetch, fault)()
    task = create_task(get(fetch))
    await team.clock.run_for(86_400)
    assert not task.done()
    task.cancel()


async def test_a_stalled_answer_begins(fetch: MemoryFetch) -> None:
    fetch.stall()
    async with fetch(URL, headers={}) as response:
        assert len(await anext(aiter(response.body))) > 100


async def test_a_slow_answer_takes_its_time_on_the_clock(team: FakeTeam, fetch: MemoryFetch) -> None:
    fetch.slow(4)
    task = create_task(get(fetch))
    await team.clock.run_for(3.9)
    early = task.done()
    await team.clock.run_for(0.1)
    assert (early, task.done(), (await task)[2]) == (False, True, team.certs_body())


async def test_a_dripping_answer_pauses_before_each_piece(team: FakeTeam, fetch: MemoryFetch) -> None:
    fetch.drip(2, size=1_000)
    task = create_task(get(fetch))
    pauses = (len(team.certs_body()) - 1) // 1_000
    await team.clock.run_for(2 * pauses - 0.1)
    early = task.done()
    await team.clock.run_for(0.1)
    assert (early, task.done(), (await task)[2]) == (False, True, team.certs_body())


async def test_flapping_edges_alternate_between_the_former_and_the_latest_document(
    team: FakeTeam, fetch: MemoryFetch
) -> None:
    former = team.certs_body()
    fetch.flap()
    team.rotate()
    assert [(await get(fetch))[2] for _ in range(4)] == [former, team.certs_body()] * 2


async def test_a_lagging_edge_publishes_late(team: FakeTeam, fetch: MemoryFetch) -> None:
    former = team.certs_body()
    fetch.lag(3)
    team.rotate()
    before = (await get(fetch))[2]
    team.clock.advance(3)
    assert (before, (await get(fetch))[2]) == (former, team.certs_body())


async def test_faults_take_effect_in_order_for_their_number_of_fetches(fetch: MemoryFetch) -> None:
    fetch.fail_with(500, times=2)
    fetch.fail_with(404, times=1)
    assert [(await get(fetch))[0] for _ in range(4)] == [500, 500, 404, 200]


async def test_a_fault_without_a_number_lasts_until_recovery(fetch: MemoryFetch) -> None:
    fetch.fail_with(500)
    assert [(await get(fetch))[0] for _ in range(3)] == [500, 500, 500]
    fetch.recover()
    assert (await get(fetch))[0] == 200


async def test_the_next_fault_ends_one_without_a_number(fetch: MemoryFetch) -> None:
    fetch.fail_with(500)
    fetch.fail_with(404, times=1)
    assert [(await get(fetch))[0] for _ in range(2)] == [404, 200]


@pytest.mark.parametrize("wrong", [None, {"keys": []}, b"{}", "acme"])
async def test_only_a_team_can_be_served(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="FakeTeam"):
        MemoryFetch(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [99, 600])
def test_a_status_out_of_range_is_rejected(status: int) -> None:
    with pytest.raises(ConfigurationError, match=f"status must be from 100 to 599, not {status}"):
        MemoryFetch(FakeTeam()).fail_with(status)


@pytest.mark.parametrize("times", [0, -1])
def test_a_fault_for_no_fetches_is_rejected(times: int) -> None:
    with pytest.raises(ConfigurationError, match=f"times must be at least 1, not {times}"):
        MemoryFetch(FakeTeam()).hang(times=times)


@pytest.mark.parametrize(
    ("fault", "arguments", "options", "error"),
    [
        ("slow", [float("nan")], {}, "seconds must be finite and not negative, not nan"),
        ("slow", [float("inf")], {}, "seconds must be finite and not negative, not inf"),
        ("slow", [-1], {}, "seconds must be finite and not negative, not -1"),
        ("lag", [-1], {}, "seconds must be finite and not negative, not -1"),
        ("drip", [-1], {}, "pause must be finite and not negative, not -1"),
        ("drip", [1], {"size": 0}, "size must be at least 1 byte, not 0"),
        ("oversize", [-1], {}, "size must be at least 1 byte, not -1"),
        ("gzip_bomb", [0], {}, "size must be at least 1 byte, not 0"),
        ("answer_with", [{"keys": []}], {}, "a body must be bytes, not dict; encode JSON: json.dumps(…).encode()"),
        ("answer_with", ["{}"], {}, "a body must be bytes, not str; encode JSON: json.dumps(…).encode()"),
        ("answer_with", [b"{}"], {"headers": {"age": 5}}, "header names and values must be text, not 'age': 5"),
        ("redirect", [None], {}, "header names and values must be text, not 'location': None"),
    ],
)
async def test_a_fault_with_an_invalid_argument_is_rejected_at_its_call(
    fetch: MemoryFetch, fault: str, arguments: list[Any], options: dict[str, Any], error: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(error)}$"):
        getattr(fetch, fault)(*arguments, **options)
    assert (await get(fetch))[0] == 200


@pytest.mark.parametrize("headers", [{1: "x"}, {"x": b"y"}])
def test_headers_of_correct_answers_must_be_text(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="header names and values must be text"):
        MemoryFetch(FakeTeam(), headers=headers)
