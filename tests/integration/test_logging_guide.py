"""The logging guide: its configurations run as they are, and the log then is what the page shows."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

PAGE = (Path(__file__).parents[2] / "docs/guides/logging.md").read_text()
HEADER = "Cf-Access-Jwt-Assertion"
APP = """
from typing import Annotated, Any
from fastapi import Depends, FastAPI, WebSocket
from fastapi_cloudflare_access import CloudflareAccess, UserClaims

access = CloudflareAccess()
app = FastAPI()

def is_admin(user: UserClaims) -> bool:
    return False

@app.get("/me", dependencies=[Depends(access.user)])
def me() -> None: ...

@app.get("/reports/{number}", dependencies=[Depends(access.require_user(is_admin))])
def report(number: int) -> None: ...

@app.get("/greeting")
def greeting(caller: Annotated[Any, Depends(access.optional)]) -> None: ...

@app.websocket("/feed", dependencies=[Depends(access.user)])
async def feed(websocket: WebSocket) -> None: ...
"""
pytestmark = pytest.mark.usefixtures("clean_proxies")


@pytest.fixture
def clean_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def section(heading: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]


def blocks(heading: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)


def records(block: str) -> list[str]:
    """Return the records of a block of the page, whose continuation lines are indented."""
    return re.sub(r"\n +", " ", block).splitlines()


def masked(line: str, page: list[str]) -> str:
    """Return the line of the page that a line of the log has the form of, or the line itself."""
    patterns = {shown: re.escape(shown).replace("…", ".{1,30}") for shown in page}
    return next((shown for shown, pattern in patterns.items() if re.fullmatch(pattern, line)), line)


@contextmanager
def serving(folder: Path, server: CertsServer) -> Generator[tuple[str, Path]]:
    """Run the app by the command of the page; give its address and its log."""
    (folder / "app.py").write_text(APP)
    (folder / "log_config.json").write_text(blocks("Plain uvicorn", "json")[0])
    (command,) = blocks("Plain uvicorn", "sh")
    arguments = [sys.executable, "-m", *command.split(), "--port", "0"]
    environment = os.environ | {
        "CF_ACCESS_TEAM_DOMAIN": server.origin,
        "CF_ACCESS_AUDIENCE": server.team.audience,
    }
    path = folder / "log"
    with path.open("w") as log:
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"running on http://(\S+)", path.read_text())):
            assert process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.02)
        yield found[1], path
    finally:
        process.terminate()
        process.wait(30)


def package_records(path: Path, page: list[str]) -> list[str]:
    shown = re.compile("cf-access (refused|ignored|could not fetch)")
    lines = [line for line in path.read_text().splitlines() if shown.search(line)]
    return [masked(line, page) for line in lines]


def test_under_plain_uvicorn_every_refusal_looks_as_on_the_page(tmp_path: Path) -> None:
    page = records(blocks("Plain uvicorn", "text")[0])
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server, serving(tmp_path, server) as (address, log), httpx.Client() as client:
        good = team.user_token("ada@example.com")
        expired = team.forge("expired")
        tokens = [None, "a.b.c", team.forge("wrong_audience"), team.forge("wrong_issuer"), expired]
        tokens += [good[:-8] + "AAAAAAAA", team.forge("unknown_kid"), team.service_token("backup")]
        assert client.get(f"http://{address}/me", headers={HEADER: good}).status_code == 200
        statuses = [
            client.get(f"http://{address}/me", headers={HEADER: token} if token else {}).status_code for token in tokens
        ]
        assert statuses == [401] * 7 + [403]
        assert client.get(f"http://{address}/reports/7", headers={HEADER: good}).status_code == 403
        assert (
            client.get(f"http://{address}/greeting", headers={"Cookie": f"CF_Authorization={expired}"}).status_code
            == 200
        )
        with pytest.raises(InvalidStatus):
            websockets.sync.client.connect(f"ws://{address}/feed", additional_headers={HEADER: expired})
        assert package_records(log, page) == page


def test_without_keys_the_log_names_the_url_and_the_cause(tmp_path: Path) -> None:
    page = records(blocks("Plain uvicorn", "text")[1])
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as server, serving(tmp_path, server) as (address, log):
        server.fail_with(500)
        answer = httpx.get(f"http://{address}/me", headers={HEADER: team.user_token("ada@example.com")})
        assert answer.status_code == 503
        assert package_records(log, page) == page


@pytest.mark.parametrize(("heading", "language"), [("JSON", "json"), ("structlog", "text")])
def test_a_configuration_in_python_writes_the_record_of_the_page(heading: str, language: str, tmp_path: Path) -> None:
    (code,), (shown,) = blocks(heading, "python"), blocks(heading, language)
    page = records(shown)
    line = refusal(code, f"""{{"{HEADER}": team.forge("expired")}}""", tmp_path)
    assert masked(line, page) == page[0]
    if language == "json":
        assert json.loads(line)["reason"] == "token_expired"


def test_two_lines_show_a_request_without_a_token(tmp_path: Path) -> None:
    (code,) = blocks("Two lines for plain uvicorn", "python")
    assert re.fullmatch(r"[\d-]+ [\d:,]+ INFO: .*refused GET /me: missing_token.*", refusal(code, "{}", tmp_path))


def refusal(code: str, headers: str, folder: Path) -> str:
    """Return what a configuration of the page writes for a request with these headers."""
    (folder / "app.py").write_text(APP)
    request = f"""
        from app import access, app
        from fastapi.testclient import TestClient
        from fastapi_cloudflare_access.testing import FakeTeam
        team = FakeTeam("acme")
        with team.patch(access), TestClient(app) as client:
            assert client.get("/me", headers={headers}).status_code == 401
    """
    done = subprocess.run(
        [sys.executable, "-c", code + textwrap.dedent(request)],
        cwd=folder,
        env=os.environ | {"CF_ACCESS_TEAM_DOMAIN": "acme", "CF_ACCESS_AUDIENCE": "0" * 64},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "refused" in line]
    return line
