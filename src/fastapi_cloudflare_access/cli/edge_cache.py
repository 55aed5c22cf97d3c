"""The check whether Cloudflare caches a page of the app: two requests through its public name."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi_cloudflare_access._clock import run_with_timeout
from fastapi_cloudflare_access._keys.document import describe
from fastapi_cloudflare_access._keys.environment import EnvironmentProblem
from fastapi_cloudflare_access._keys.http import HttpxFetch
from fastapi_cloudflare_access._requests.urls import LOGIN_PATH, MAX_RETURN, is_host
from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access.cli.formatting import printable
from fastapi_cloudflare_access.cli.reports import CommandError, Status, Step
from fastapi_cloudflare_access.protocols import Clock, Fetch, FetchResponse

TIMEOUT = 10.0
"""Seconds for each of the two requests."""
FROM_CACHE = frozenset({"HIT", "STALE", "UPDATING", "REVALIDATED", "EXPIRED"})
"""Values of `CF-Cache-Status` of a response that Cloudflare has, or had, in its cache."""
CACHEABLE = "MISS"
"""The value if the response was not in the cache, and may be from now on."""

_LOCAL = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?")
_URL = re.compile(rf"[!-~]{{1,{MAX_RETURN}}}")
_TOKEN = re.compile(rb"[A-Za-z0-9_.-]+")
_REFUSED = (401, 403)
_HINT = "add AccessGuard or PrivateResponses to the app, or set Cache-Control: private; then purge the cache"
_LOGIN_HINT = "pass a token of this app: the value of its cookie CF_Authorization in your browser"


def check_page(url: str) -> None:
    """Check that a URL is a page of an app, at its public name or on this machine.

    Raises:
        CommandError: It is not.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    host = parts.netloc.lower()
    is_encrypted_or_local = parts.scheme == "https" or (parts.scheme == "http" and _LOCAL.fullmatch(host))
    if not (_URL.fullmatch(url) and is_host(host) and is_encrypted_or_local):
        raise CommandError("--page must be the URL of a page of your app, such as https://app.example.com/report.csv.")


async def check_edge_cache(url: str, token: bytes | None, *, clock: Clock, fetch: Fetch | None) -> Step:
    """Ask for a page twice, with the token as the cookie, and read `CF-Cache-Status` of the second response.

    Redirects are not followed and bodies are not read.

    Args:
        url: The URL of the page; `check_page` has checked it.
        token: A token of the app.
        clock: The source of time.
        fetch: The function that sends the requests; None means httpx.
    """
    ask = fetch or HttpxFetch(trust_env=url.startswith("https:"))
    cookie = {"cookie": f"{COOKIE}={token.decode()}"} if token and _TOKEN.fullmatch(token) else {}
    try:
        responses = [await run_with_timeout(clock, _head_of(ask, url, cookie), timeout=TIMEOUT) for _ in range(2)]
    except EnvironmentProblem as wrong:
        return _step("failed", wrong.problem, wrong.hint)
    except Exception as problem:  # noqa: BLE001 - a fetch may raise anything
        return _step("failed", f"the page was not received: {describe(problem)}", "check the URL and the network")
    return judge(responses[-1].status, responses[-1].headers)


async def _head_of(fetch: Fetch, url: str, headers: Mapping[str, str]) -> FetchResponse:
    async with fetch(url, headers=headers) as response:
        return response


def judge(status: int, headers: Mapping[str, str]) -> Step:
    """Return the result by the status and the headers of the second response."""
    cache_status = headers.get("cf-cache-status", "").strip().upper()
    shown = f"(HTTP status {status}, CF-Cache-Status {printable(cache_status, limit=20) or 'missing'})"
    if cache_status in FROM_CACHE:
        return _step("failed", f"Cloudflare caches the page for all callers {shown}", _HINT)
    if LOGIN_PATH in headers.get("location", "") or status in _REFUSED:
        return _step("skipped", f"not checked: the page needs a login {shown}", _LOGIN_HINT)
    if cache_status == CACHEABLE:
        return _step("warning", f"Cloudflare may cache the page for all callers {shown}", _HINT)
    if not cache_status:
        hint = "use the public URL of the app, as a browser does"
        return _step("skipped", f"not checked: the response did not come through Cloudflare {shown}", hint)
    return _step("ok", f"Cloudflare does not cache the page {shown}")


def _step(status: Status, text: str, hint: str | None = None) -> Step:
    return Step(name="cache", status=status, text=text, hint=hint)
