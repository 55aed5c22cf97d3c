"""`doctor --page` finds out whether Cloudflare caches a page, by two requests through the public name."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.command_line import Cli

from fastapi_cloudflare_access._keys.environment import EnvironmentProblem
from fastapi_cloudflare_access.cli.edge_cache import judge
from fastapi_cloudflare_access.protocols import FetchResponse
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

PAGE = "https://app.example.com/report.csv"


class Edge:
    """Answers with these headers, one for each request, and passes on requests for the certs."""

    def __init__(
        self, certs: MemoryFetch, *cache: str | None, status: int = 200, failure: Exception | None = None
    ) -> None:
        self.certs, self.cache, self.status, self.failure = certs, [*cache], status, failure
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    @asynccontextmanager
    async def __call__(self, url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        if "/cdn-cgi/access/certs" in url:
            async with self.certs(url, headers=headers) as response:
                yield response
            return
        self.asked.append((url, headers))
        if self.failure:
            raise self.failure

        async def body() -> AsyncGenerator[bytes]:
            pytest.fail("the body is read")
            yield b""

        found = self.cache.pop(0)
        yield FetchResponse(self.status, {"cf-cache-status": found} if found else {}, body())


def run(cli: Cli, edge: Edge, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = cli("doctor", "--page", PAGE, *arguments, "--json", fetch=edge)
    return result.code, {step["name"]: step for step in json.loads(result.out)["steps"]}["cache"]


@pytest.mark.usefixtures("configured", "resolved")
@pytest.mark.parametrize(
    ("cache", "code", "status", "text"),
    [
        (
            ("MISS", "HIT"),
            1,
            "failed",
            "Cloudflare caches the page for all callers (HTTP status 200, CF-Cache-Status HIT)",
        ),
        (
            ("HIT", "hit"),
            1,
            "failed",
            "Cloudflare caches the page for all callers (HTTP status 200, CF-Cache-Status HIT)",
        ),
        (("MISS", "MISS"), 0, "warning", "Cloudflare may cache the page"),
        (
            ("DYNAMIC", "DYNAMIC"),
            0,
            "ok",
            "Cloudflare does not cache the page (HTTP status 200, CF-Cache-Status DYNAMIC)",
        ),
        (("BYPASS", "BYPASS"), 0, "ok", "Cloudflare does not cache the page"),
        ((None, None), 0, "skipped", "not checked: the response did not come through Cloudflare"),
    ],
)
def test_the_second_response_says_whether_the_page_is_cached(
    cli: Cli, certs: MemoryFetch, cache: tuple[str | None, ...], code: int, status: str, text: str
) -> None:
    edge = Edge(certs, *cache)
    assert run(cli, edge)[0] == code
    edge.cache = [*cache]
    step = run(cli, edge)[1]
    assert (step["status"], step["text"][: len(text)]) == (status, text)
    assert ("PrivateResponses" in str(step["hint"])) == (status in ("failed", "warning"))
    assert edge.asked == [(PAGE, {})] * 4


@pytest.mark.usefixtures("resolved")
def test_the_token_goes_with_the_requests_as_the_cookie(cli: Cli, certs: MemoryFetch, configured: FakeTeam) -> None:
    token = configured.user_token("ada@example.com")
    edge = Edge(certs, "BYPASS", "BYPASS")
    assert run(cli, edge, token)[0] == 0
    assert edge.asked == [(PAGE, {"cookie": f"CF_Authorization={token}"})] * 2
    edge = Edge(certs, "BYPASS", "BYPASS")
    run(cli, edge, "a.b\r\nX-Injected: 1")
    assert edge.asked == [(PAGE, {})] * 2


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {"location": "https://acme.cloudflareaccess.com/cdn-cgi/access/login/app.example.com?kid=x"}),
        (401, {}),
        (403, {}),
    ],
)
def test_a_page_that_needs_a_login_is_not_judged_unless_it_came_from_the_cache(
    status: int, headers: dict[str, str]
) -> None:
    for cache, expected in (("DYNAMIC", "skipped"), ("MISS", "skipped"), ("HIT", "failed")):
        assert judge(status, {**headers, "cf-cache-status": cache}).status == expected
    assert judge(307, {"location": "/elsewhere", "cf-cache-status": "DYNAMIC"}).status == "ok"


def test_a_value_of_the_server_cannot_fill_the_terminal() -> None:
    assert len(judge(200, {"cf-cache-status": "\x1b[31m" * 1000}).text) < 120


@pytest.mark.usefixtures("configured", "resolved")
@pytest.mark.parametrize(
    ("failure", "text", "hint"),
    [
        (ConnectionResetError(), "the page was not received: ", "check the URL and the network"),
        (TimeoutError(), "the page was not received: no response in time", "check the URL and the network"),
        (RuntimeError("secret"), "the page was not received: the fetch failed with RuntimeError", "check the URL"),
        (
            EnvironmentProblem("HTTPS_PROXY is not a valid URL", "unset it"),
            "HTTPS_PROXY is not a valid URL",
            "unset it",
        ),
    ],
)
def test_a_page_that_cannot_be_fetched_is_reported(
    cli: Cli, certs: MemoryFetch, failure: Exception, text: str, hint: str
) -> None:
    code, step = run(cli, Edge(certs, failure=failure))
    assert (code, step["status"]) == (1, "failed")
    assert step["text"].startswith(text)
    assert step["hint"].startswith(hint)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example.com/x",
        "http://app.example.com/x",
        "ftp://app.example.com/x",
        "https://",
        "https://user@app.example.com/",
        "https://app.example.com:x/",
        "https://app.example.com/a b",
        "https://app.example.com/\r\nX: y",
        "https://[::1/",
        "https://app.example.com/" + "a" * 5000,
        "http://localhost.evil.example/",
    ],
)
def test_a_url_that_is_no_page_of_an_app_is_a_usage_error(cli: Cli, url: str) -> None:
    result = cli("doctor", "--page", url)
    assert (result.code, result.out) == (2, "")
    assert "--page must be the URL of a page of your app" in result.err


@pytest.mark.usefixtures("configured", "resolved")
@pytest.mark.parametrize(
    "url", ["http://localhost:8000/x", "http://127.0.0.1/", "http://[::1]:8000/", "HTTPS://App.Example.com"]
)
def test_a_page_on_this_machine_may_be_asked_for_without_tls(cli: Cli, certs: MemoryFetch, url: str) -> None:
    edge = Edge(certs, "DYNAMIC", "DYNAMIC")
    assert cli("doctor", "--page", url, fetch=edge).code == 0
    assert [asked for asked, _ in edge.asked] == [url] * 2
