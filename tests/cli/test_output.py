"""The output is readable on light and dark backgrounds, at any width, in a real terminal."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from rich.color import Color, ColorSystem
from support.command_line import Cli

from fastapi_cloudflare_access.cli.formatting import duration, printable, redacted, relative, short
from fastapi_cloudflare_access.cli.output import MARKS, PLAIN_MARKS, STYLES, Screen
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

GROUNDS = {"#ffffff": 3.5, "#fdf6e3": 3.0, "#000000": 3.5, "#292929": 3.0, "#002b36": 3.0}
"""Background colours of terminals, and the minimum contrast of marks on each.

WCAG 2.2 requires 3 for marks and for bold, large text, and 4.5 for small text. No colour has more than 4.58 on both
white and black.
"""


def luminance(color: str) -> float:
    channels = [value / 255 for value in Color.parse(color).get_truecolor()]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT])
@pytest.mark.parametrize("style", sorted(set(filter(None, STYLES.values()))))
def test_colours_can_be_read_on_light_and_on_dark(style: str, system: ColorSystem, ground: str) -> None:
    """The same holds for the nearest of 256 colours."""
    shown = Color.parse(style).downgrade(system).get_truecolor().hex
    dark, light = sorted((luminance(shown), luminance(ground)))
    assert (light + 0.05) / (dark + 0.05) >= GROUNDS[ground]


def test_forced_colours_in_a_file_add_no_animation(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    out = cli("doctor").out + cli("keys", "--watch", "--times", "1").out
    assert "\x1b[1;38;5;28m✓" in out
    assert set(re.findall(r"\x1b\[[0-9;?]*([a-zA-Z])", out)) == {"m"}
    assert "checking" not in out


def test_a_spinner_is_shown_on_a_terminal(cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setattr(Screen, "is_live", property(lambda screen: True))
    assert "checking…" in cli("doctor").out


def test_marks_distinguish_the_results_without_colours() -> None:
    assert len(set(MARKS.values())) == len(set(PLAIN_MARKS.values())) == len(STYLES)
    assert "".join(PLAIN_MARKS.values()).isascii()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_screen(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    token = configured.forge("expired")
    monkeypatch.setenv("CF_ACCESS_TOKEN", token)
    for command in ("doctor", "inspect", "verify", "keys", "verify --certs /", "keys --watch --times 1"):
        result = cli(*command.split())
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", result.out + result.err).replace("\r", "\n")
        assert max(map(len, plain.splitlines())) <= width


def test_durations_use_their_largest_unit() -> None:
    shown = [duration(seconds) for seconds in (0.5, 1, 59, 60, 7199, 7200, 86_400, -172_800)]
    assert shown == ["less than a second", "1 second", "59 seconds", "1 minute", "1 hour", "2 hours", "1 day", "2 days"]
    assert [relative(5, 5), relative(65, 5), relative(5, 65)] == ["now", "in 1 minute", "1 minute ago"]


def test_long_names_are_truncated() -> None:
    assert (short("abc"), short("a" * 64), printable("a" * 300, limit=5)) == ("abc", "aaaaaaaa…", "aaaa…")


def test_only_possible_tokens_are_redacted() -> None:
    kept = "set CF_ACCESS_AUDIENCE. See acme-with-a-long-name-of-its-own.cloudflareaccess.com and certs.json."
    assert redacted(kept) == kept
    assert redacted(f"'{'a' * 30}.{'b' * 30}.{'c' * 30}' and eyJhbGciOi.x") == "'aaaaaa…' and eyJhbG…"


pytestmark = pytest.mark.xdist_group("terminal")


class Terminal:
    """A real terminal in tmux."""

    def __init__(self, width: int, environment: dict[str, str]) -> None:
        self._name = f"cf-{uuid4().hex}"
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", "50", f"env {exports} PS1='$ ' sh"
        )  # fmt: skip

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def run(self, command: str, until: str) -> str:
        """Type a command, wait for a pattern, and return the screen."""
        self._tmux("send-keys", "clear; " + command, "Enter")
        return self.wait(until)

    def wait(self, until: str) -> str:
        end = time.monotonic() + 20
        while not re.search(until, screen := self._tmux("capture-pane", "-p", "-e")):
            assert time.monotonic() < end, screen
            time.sleep(0.1)
        return screen

    def interrupt(self) -> None:
        self._tmux("send-keys", "C-c")

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture(params=[80, 120])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Terminal, FakeTeam[SystemClock]]]:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux here")
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server:
        (tmp_path / "token").write_text(team.user_token("ada@example.com"))
        environment = {
            "CF_ACCESS_TEAM_DOMAIN": server.origin,
            "CF_ACCESS_AUDIENCE": team.audience,
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        terminal = Terminal(request.param, environment)
        yield terminal, team
        terminal.close()


def test_in_a_terminal_the_doctor_has_colours(terminal: tuple[Terminal, FakeTeam[SystemClock]], tmp_path: Path) -> None:
    shell, team = terminal
    command = f"cf-access doctor - <{tmp_path}/token; echo code $?"
    screen = shell.run(command, r"code \d")
    assert "code 0" in screen
    assert screen.count("✓") == 9
    assert re.search(r"\x1b\[[0-9;]*m✓", screen)
    assert team.current.kid in screen


def test_in_a_terminal_a_watch_shows_a_rotation_and_ends_with_an_interrupt(
    terminal: tuple[Terminal, FakeTeam[SystemClock]],
) -> None:
    shell, team = terminal
    shell.run("python -m fastapi_cloudflare_access keys --watch --interval 1; echo code $?", "Ctrl-C to stop")
    team.rotate()
    screen = shell.wait(f"new key {team.current.kid[:8]}")
    assert screen.count("current key, RSA 2048") == 1
    shell.interrupt()
    assert "code 0" in shell.wait(r"code \d")
