"""Open requests end with the server or with their session, and never on their own account."""

import asyncio

import pytest

from fastapi_cloudflare_access.local import open_requests
from fastapi_cloudflare_access.local.open_requests import OpenRequests

pytestmark = pytest.mark.anyio


async def hang(requests: OpenRequests, session: str, ended: list[str], times: int = 0) -> None:
    """Answer a request that ignores some cancellations."""
    with requests.tracked({"type": "http"}) as opened:
        opened.session = session
        for _ in range(times):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("ignored")
        await asyncio.Event().wait()
    ended.append(session)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_requests, "GRACE", 0)
    monkeypatch.setattr(open_requests, "_RETRY", 0)


async def test_only_the_requests_of_a_session_end_with_it() -> None:
    requests, ended = OpenRequests(), list[str]()
    tasks = [asyncio.ensure_future(hang(requests, session, ended)) for session in ("a", "a", "b")]
    await asyncio.sleep(0)
    assert requests.end_session("") == 0
    assert requests.end_session("a") == 2
    await asyncio.wait(tasks[:2])
    assert ended == ["a", "a"]
    await requests.end_all()
    await asyncio.wait(tasks)
    assert ended == ["a", "a", "b"]


async def test_a_handler_may_need_several_cancellations_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_requests, "_ROUNDS", 3)
    requests, ended = OpenRequests(), list[str]()
    tasks = [asyncio.ensure_future(hang(requests, "a", ended, times)) for times in (2, 10)]
    await asyncio.sleep(0)
    await requests.end_all()
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True, False]
    await requests.end_all()
    while not tasks[1].done():
        tasks[1].cancel()
        await asyncio.sleep(0)


async def test_a_cancellation_from_elsewhere_is_not_kept() -> None:
    requests = OpenRequests()
    task = asyncio.ensure_future(hang(requests, "a", []))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
