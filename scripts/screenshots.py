"""Take the pictures that the docs show: `python scripts/screenshots.py [local|terminal]`, else all of them.

Those of the local Access need Debian's chromium and playwright. Those of the command line show a team of the testing
kit at a time that stands still, in a terminal of 80 columns.
"""

import json
import os
import shutil
import socket
import sys
from contextlib import redirect_stdout
from hashlib import sha256
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

from fastapi_cloudflare_access.cli import main as cf_access
from fastapi_cloudflare_access.local import App, Config, Policy, RunningAccess, run_local_access
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs" / "assets"
SHOWN = ROOT / "src/fastapi_cloudflare_access/local/templates"
TAKEN_FROM = Path(__file__).with_suffix(".json")
"""What the pictures of the local Access show: a digest of each template. A test notices that one has changed."""
WIDTH = 900
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SHOP = App(name="Shop", host="shop.localhost", policies=(Policy(name="Admins", groups=("admins",)),))


def take(page: Page, local: RunningAccess, suffix: str) -> None:
    """Go through the pages, one picture each."""

    def picture(name: str, *, height: int = 0) -> None:
        """Take the whole page, or its first part."""
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height} if height else None
        page.screenshot(path=ASSETS / f"local-{name}{suffix}.png", full_page=True, clip=clip)  # type: ignore[arg-type]

    page.goto(local.url("/", app="Shop"))
    picture("login")
    page.get_by_role("button", name="Grace").click()
    page.get_by_role("heading", name="does not have access").wait_for()
    picture("no-access")
    page.get_by_role("link").click()
    page.get_by_role("button", name="Ada").click()
    page.wait_for_url(local.url("/", app="Shop"))
    page.goto(local.team_domain)
    page.locator("summary").first.click()
    picture("control", height=1000)
    page.goto(local.url("/cdn-cgi/access/logout"))
    picture("logged-out")


def local_pictures() -> None:
    """Take every page of the local Access in light and in dark."""
    config = Config(apps=(App(name="Wiki"), SHOP))
    with (
        run_local_access(config=config, port=8787) as local,
        TemporaryDirectory() as profile,
        sync_playwright() as tool,
    ):
        for scheme, suffix in (("light", ""), ("dark", "-dark")):
            local.control("reset")
            context = tool.chromium.launch_persistent_context(
                f"{profile}/{scheme}",
                executable_path=shutil.which("chromium"),
                args=FLAGS,
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": WIDTH, "height": 320},
            )
            take(context.new_page(), local, suffix)
            context.close()
    TAKEN_FROM.write_text(json.dumps(digests(), indent=2) + "\n")


def digests() -> dict[str, str]:
    """Return the digest of each file that determines how the pages look."""
    files = [path for path in sorted(SHOWN.iterdir()) if path.suffix in {".css", ".html"}]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in files}


COLUMNS = 80
THEMES = {"light": DEFAULT_TERMINAL_THEME, "dark": SVG_EXPORT_THEME}
ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))
DATE = {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""As rich has it, with the reader's own fonts: nothing is fetched from elsewhere."""


def screen(team: FakeTeam, command: str, token: str) -> str:
    """Give what a command writes to a terminal."""
    environment = {
        "CF_ACCESS_TEAM_DOMAIN": team.issuer,
        "CF_ACCESS_AUDIENCE": team.audience,
        "CF_ACCESS_TOKEN": token,
        "COLUMNS": str(COLUMNS),
        "COLORTERM": "truecolor",
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
        "PATH": os.environ["PATH"],
    }
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(socket, "getaddrinfo", lambda *_, **__: [ADDRESS]),
        redirect_stdout(StringIO()) as out,
    ):
        cf_access(command.split(), clock=team.clock, fetch=MemoryFetch(team, headers=DATE))
    return out.getvalue()


def drawn(text: str, title: str, theme: TerminalTheme) -> str:
    """Draw a terminal that shows this."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(text))
    picture = console.export_svg(title=title, theme=theme, code_format=FRAME, unique_id=title.replace(" ", "-"))
    return picture.replace("rgba(255,255,255,0.35)", "rgba(128,128,128,0.5)")  # an edge that shows on white too


def terminal_pictures() -> None:
    """Take the command line in light and in dark."""
    team = FakeTeam("acme")
    for command, token in (("doctor", "wrong_audience"), ("verify", "expired")):
        text = screen(team, command, team.forge(token))
        for name, theme in THEMES.items():
            picture = drawn(text, f"cf-access {command}", theme)
            (ASSETS / f"cf-access-{command}-{name}.svg").write_text(picture)


if __name__ == "__main__":
    for name, take_pictures in {"local": local_pictures, "terminal": terminal_pictures}.items():
        if name in (sys.argv[1:] or [name]):
            take_pictures()
