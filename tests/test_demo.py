"""The demo shows the main job: which callers the quickstart app admits, and which it refuses."""

import re
import subprocess
import sys
from pathlib import Path

from support.browser import browser, needs_browser

ROOT = Path(__file__).parents[1]


@needs_browser
def test_in_a_browser_the_demo_greets_and_shows_a_service_call_and_a_refused_one() -> None:
    command = [sys.executable, "-u", "-c", "import demo_edge; demo_edge.PORT = 0; demo_edge.demonstrate(once=False)"]
    with (
        subprocess.Popen(command, cwd=ROOT / "scripts", stdout=subprocess.PIPE, text=True, encoding="utf-8") as demo,
        browser() as context,
    ):
        try:
            assert demo.stdout is not None
            found = next(found for line in demo.stdout if (found := re.match(r"Open (\S+) in a browser", line)))
            page = context.new_page()
            page.goto(found[1])
            page.get_by_role("button", name="Ada").click()
            page.get_by_role("heading", name="Hello ada@example.com").wait_for()
            assert "You are in Analytical Engines, since 1843. Your groups: admins, engineering." in page.inner_text(
                "body"
            )
            for button, result in (("As the service", "202 Accepted"), ("As yourself", "403 Forbidden")):
                page.get_by_role("button", name=button).click()
                page.get_by_role("status").filter(has_text=result).wait_for()
        finally:
            demo.terminate()


def test_the_demo_shows_what_each_caller_gets() -> None:
    command = [sys.executable, str(ROOT / "scripts/demo.py"), "--once"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, encoding="utf-8").stdout
    titles_and_statuses = re.findall(r"^(\w.+)\ncurl -i .+\n→ (\d+) ", shown, re.MULTILINE)
    assert titles_and_statuses == [
        ("A user", "200"),
        ("A service token", "202"),
        ("An expired token", "401"),
        ("A forged token: signed by a stranger", "401"),
        ("A foreign token: for another application of the team", "401"),
        ("No token", "401"),
        ("A user where only services may", "403"),
        ("A service token starts a job", "202"),
        ("With a wrong secret the edge asks to log in", "302"),
        ("A person who is logged in is greeted with her claims", "200"),
        ("But may not do what is for services", "403"),
        ("An unsigned token never reaches the app", "302"),
    ]
    assert re.search(r"^Open http://localhost:\d+/ in a browser", shown, re.MULTILINE)
    reasons = re.findall(r"^  log: cf-access refused \w+ \S+: (\w+)", shown, re.MULTILINE)
    assert reasons == [
        "token_expired",
        "invalid_signature",
        "wrong_audience",
        "missing_token",
        "wrong_caller",
        "wrong_caller",
    ]
