"""Cookies have the attributes that Access documents, unless the browser rejects them."""

from email.utils import parsedate_to_datetime

import pytest
from support.local_rig import make_local_access, make_request

from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.cookies import (
    app_cookie,
    app_session_cookie,
    expired_token_cookie,
    service_cookie,
    team_cookie,
    team_session_cookie,
)
from fastapi_cloudflare_access.testing import FakeClock

CHROME = "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
SAFARI = "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15"


def attributes(app: App, *, agent: str = CHROME, scheme: str = "http", secure: bool = True) -> str:
    local_access = make_local_access(app, team={"secure_cookies": secure})
    request = make_request(headers={"user-agent": agent}, scheme=scheme)
    return app_cookie(request, local_access, app, "t").partition("GMT; ")[2]


def test_the_app_sets_the_attributes_of_its_cookie() -> None:
    app = App(name="app", paths=("/api",), http_only=False, same_site="strict", path_cookie=True)
    assert attributes(App(name="app")) == "Path=/; Secure; HttpOnly; SameSite=none"
    assert attributes(app) == "Path=/api; Secure; SameSite=strict"


def test_over_plain_http_only_loopback_names_get_secure_cookies() -> None:
    local_access = make_local_access(App(name="a", host="app.test"), App(name="b", host="b.localhost"))
    for host, scheme, expected in (
        ("app.test", "http", False),
        ("app.test", "https", True),
        ("b.localhost", "http", True),
        ("localhost", "http", True),
        ("notlocalhost", "http", False),
        ("127.0.0.1:8787", "http", True),
        ("[::1]:8787", "http", True),
    ):
        line = app_session_cookie(make_request(host=host, scheme=scheme), local_access, "x")
        assert ("Secure" in line) is expected, (host, scheme)


def test_a_client_that_rejects_secure_cookies_on_plain_http_gets_others() -> None:
    app = App(name="app")
    assert attributes(app, agent=SAFARI) == "Path=/; HttpOnly; SameSite=lax"
    assert attributes(app, secure=False) == "Path=/; HttpOnly; SameSite=lax"
    assert attributes(app, agent=SAFARI, scheme="https", secure=False) == "Path=/; Secure; HttpOnly; SameSite=none"


def test_the_cookie_of_a_service_token_lasts_a_day() -> None:
    local_access = make_local_access()
    line = service_cookie(make_request(), local_access, "t")
    assert line.startswith("CF_Authorization=t; Expires=")
    assert line.endswith("GMT; Path=/; Secure; SameSite=none")


@pytest.mark.parametrize("shift", [-20_000.0, 0.0, 20_000.0])
def test_cookies_expire_by_the_clock_of_the_computer(shift: float) -> None:
    local_access, clock, request = (
        make_local_access(app := App(name="app", session=600), clock=FakeClock()),
        FakeClock(),
        make_request(),
    )
    local_access.clock.shift = shift
    lines = {
        app_cookie(request, local_access, app, "t"): 600,
        service_cookie(request, local_access, "t"): 86_400,
        team_cookie(request, local_access, "t", local_access.clock.now() + 900): 900,
        app_session_cookie(request, local_access, "n"): 86_400,
        team_session_cookie(request, local_access, "s"): 4 * 3600,
    }
    lifetimes = {line: parsedate_to_datetime(line.split("; ")[1][8:]).timestamp() - clock.now() for line in lines}
    assert lifetimes == lines


@pytest.mark.parametrize("path", ["/", "/api"])
def test_the_cookie_is_removed_at_the_path_where_it_was_set(path: str) -> None:
    app = App(name="app", paths=("/api",), path_cookie=path != "/")
    assert f"Path={path};" in expired_token_cookie(make_request(), make_local_access(app), app)
    assert "Path=/;" in expired_token_cookie(make_request(), make_local_access(app), None)
