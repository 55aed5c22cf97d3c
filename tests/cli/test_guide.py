"""The guide and the reference show the real output and options of the commands."""

import inspect
import re
import shlex
from html import unescape
from pathlib import Path

import pytest
from support.command_line import Cli, Skewed

from fastapi_cloudflare_access import AccessHTTPException, errors
from fastapi_cloudflare_access.cli.reports import ExitCode
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam, MemoryFetch

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guides/when-it-says-401.md").read_text()
REFERENCE = (DOCS / "reference/cli.md").read_text()
BLOCKS = re.findall(
    r"^<!-- cf-access: (.*?)-->\n```console\n\$ cf-access (.*?)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL
)
DATE = {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}


def pattern(shown: str) -> str:
    """Return a pattern for the text on the page: `…` matches any text, and alone on a line any lines."""
    lines = [r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in shown.splitlines()]
    return "".join(lines)


def token(team: FakeTeam, name: str) -> str:
    made = {"user": team.user_token("ada@example.com"), "service": team.service_token("backup")}
    return made[name] if name in made else team.forge(name)


@pytest.mark.usefixtures("resolved")
@pytest.mark.parametrize(("setup", "command", "shown"), BLOCKS, ids=[f"{at}{what}" for what, at, _ in BLOCKS])
def test_every_command_of_the_guide_does_what_the_page_shows(
    cli: Cli,
    configured: FakeTeam,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    setup: str,
    command: str,
    shown: str,
) -> None:
    given = dict(part.split("=") for part in setup.split())
    (tmp_path / "certs.json").write_bytes(configured.certs_body())
    (tmp_path / "team.pem").write_text(configured.certs()["public_cert"]["cert"])
    monkeypatch.chdir(tmp_path)
    certs = MemoryFetch(configured, headers=DATE)
    if "token" in given:
        monkeypatch.setenv("CF_ACCESS_TOKEN", token(configured, given["token"]))
    if "fault" in given:
        fault, _, argument = given["fault"].partition(":")
        getattr(certs, fault)(*map(int, filter(None, [argument])))
    result = cli(*shlex.split(command), fetch=certs, clock=Skewed(configured.clock, int(given.get("clock", 0))))
    assert re.fullmatch(pattern(shown), result.out + result.err), result.out + result.err


def drawn(picture: Path) -> str:
    """Return the text of a picture, which has one or more text elements for each line."""
    words = re.findall(r"<text [^>]*>(.*?)</text>", picture.read_text())[1:]  # the first is the title
    return written(unescape(" ".join(words)))


def written(text: str) -> str:
    """Return a text without white space and with a placeholder for each key."""
    return "".join(re.sub(r"\b[0-9a-f]{64}\b", "KID", text).split())


@pytest.mark.parametrize(("command", "name"), [("doctor", "wrong_audience"), ("verify", "expired")])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.usefixtures("resolved")
def test_the_pictures_of_the_guide_show_what_the_commands_write(
    cli: Cli, configured: FakeTeam, command: str, name: str, scheme: str
) -> None:
    picture = f"assets/cf-access-{command}-{scheme}.svg"
    assert f"](../{picture}#only-{scheme})" in GUIDE
    out = cli(command, configured.forge(name), fetch=MemoryFetch(configured, headers=DATE)).out
    assert drawn(DOCS / picture) == written(out)


def test_the_pictures_of_the_guide_fetch_nothing_from_elsewhere() -> None:
    pictures = [path.read_text() for path in DOCS.glob("assets/cf-access-*.svg")]
    assert len(pictures) == 4
    assert [
        found for picture in pictures for found in re.findall(r"(?:url\(|href=|src=)[^#)]*", picture) if ":" in found
    ] == []


def test_no_command_of_the_guide_is_left_out() -> None:
    assert len(BLOCKS) == GUIDE.count("$ cf-access ") == GUIDE.count("```console")


def test_the_guide_has_a_section_for_every_reason_code() -> None:
    kinds = {kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.AccessError)}
    leaves = {kind.reason for kind in kinds if not any(kind in other.__bases__ for other in kinds)}
    sections = set(re.findall(r"^### `(\w+)`$", GUIDE, re.MULTILINE))
    assert sections == leaves - {"configuration_error"}
    assert {forgery.reason for forgery in FORGERIES.values()} <= sections


def test_the_guide_lists_messages_and_details_of_the_package() -> None:
    table = GUIDE.partition("\n## Messages in the log and in the response\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| \[`(\w+)`\]\(#\w+\) \| (.+) \|$", table, re.MULTILINE)
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.AccessError)]
    kinds: dict[str, type[errors.AccessError]] = {kind.reason: kind for kind in found}
    source = "".join(path.read_text() for path in Path(errors.__file__).parent.rglob("*.py"))
    assert len(rows) > 15
    for messages, reason, detail in rows:
        assert AccessHTTPException(kinds[reason](""), auth_scheme="test").detail == detail
        parts = [part.strip() for part in re.split("[;…]", messages) if part.strip()]
        assert [part for part in parts if part not in source] == []


@pytest.mark.parametrize("command", ["doctor", "inspect", "verify", "keys", "routes"])
def test_the_reference_has_every_option(cli: Cli, command: str) -> None:
    for option in re.findall(r"^\s+(--\w+)", cli(command, "--help").out, re.MULTILINE):
        rows = [line for line in REFERENCE.splitlines() if line.startswith(f"| `{option}") or f"`{option}`" in line]
        assert any(f"`{command}`" in row or option == "--help" for row in rows), option


def test_the_reference_has_every_exit_code(cli: Cli) -> None:
    codes = re.findall(r"^\| (\d+) \| ", REFERENCE, re.MULTILINE)
    assert [int(code) for code in codes] == list(ExitCode)


def test_the_reference_has_every_command_and_every_option(cli: Cli) -> None:
    commands = re.findall(r"^[^\w\n]+(\w+)  ", cli("--help").out.partition("Commands")[2], re.MULTILINE)
    assert {"dev", "doctor", "verify"} <= {*commands}
    assert [command for command in commands if f"`cf-access {command}" not in REFERENCE] == []
    stable = (DOCS / "reference/stability.md").read_text().partition("The commands of `cf-access` are ")[2]
    assert re.findall(r"`(\w+)`", stable.partition(".")[0]) == sorted(commands)
    shown = "".join(cli(*command.split(), "--help").out for command in ["", *commands])
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", shown))
    named = {option for option in options if option in REFERENCE or option.replace("--", "--no-") in REFERENCE}
    assert options - named == set()
