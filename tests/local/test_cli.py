"""The command `cf-access dev`: invalid options, and a running command."""

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import typer
from support.local_rig import make_local_access

from fastapi_cloudflare_access.local import cli
from fastapi_cloudflare_access.local.cli import RISK_FLAG, DevServer, dev, load_config_or_default, print_addresses
from fastapi_cloudflare_access.local.config import App, Config
from fastapi_cloudflare_access.local.local_access import Addresses
from fastapi_cloudflare_access.local.server import Listeners, LocalServer
from fastapi_cloudflare_access.local.tls import TlsFiles

APP = """\
from fastapi import FastAPI, Depends
from fastapi_cloudflare_access import CloudflareAccess
access = CloudflareAccess()
app = FastAPI(lifespan=access.lifespan)
@app.get("/", dependencies=[Depends(access)])
async def home() -> str:
    return "first"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str, **options: object) -> str:
    with pytest.raises(typer.Exit) as ended:
        dev(*arguments, **{"port": 0, **options})  # type: ignore[arg-type]
    assert ended.value.exit_code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        (["a:b"], {"upstream": "http://127.0.0.1:1"}, "not both"),
        ([], {"upstream": "localhost:1"}, "must be an origin"),
        ([], {"upstream": "http://127.0.0.1:99999"}, "--upstream must be an origin"),
        ([], {"reload": True}, "--reload needs an app"),
        ([], {"host": "0.0.0.0"}, RISK_FLAG),
        (["nothing_here:app"], {}, "Could not import module"),
        (["nothing_here.at_all:app"], {}, "the module nothing_here does not exist"),
        (["os:nothing_here"], {}, "Attribute"),
        (["os"], {}, "must be in format"),
        ([], {"config": Path("missing.toml")}, "missing.toml cannot be read"),
    ],
    ids=[str(number) for number in range(10)],
)
def test_an_invalid_option_is_rejected_with_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], options: dict[str, object], problem: str
) -> None:
    error = error_of(capsys, *arguments, **options)
    assert error.startswith("cf-access dev: ")
    assert problem in error


def test_every_loopback_address_is_accepted_without_the_flag() -> None:
    for host in ("127.0.0.2", "::1", "localhost"):
        cli._check_options(None, None, host, reload=False, risk=False)


def test_an_app_with_a_broken_import_shows_its_own_error(folder: Path) -> None:
    (folder / "broken_app_of_mine.py").write_text("import nothing_of_that_name")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        dev("broken_app_of_mine:app", port=0)


def test_a_real_team_domain_needs_tls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "access.toml").write_text('[team]\ndomain = "acme.cloudflareaccess.com"\n')
    assert "needs --tls" in error_of(capsys)


def test_every_option_is_in_the_reference() -> None:
    reference = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text(encoding="utf-8")
    section = reference.partition("## cf-access dev")[2].partition("\n## ")[0]
    names = {"--" + name.replace("_", "-") for name in inspect.signature(dev).parameters} - {"--app", "--risk"}
    assert {option.partition(" ")[0] for option in re.findall(r"^\| `(--[^`]+)`", section, re.MULTILINE)} == {
        *names,
        RISK_FLAG,
    }


def test_init_writes_a_file_that_dev_reads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev(init=True)
    assert len(load_config_or_default(None).apps) == 2
    assert "already exists" in error_of(capsys, init=True)
    assert load_config_or_default(None) == load_config_or_default(folder / "access.toml")


def test_the_defaults_apply_without_a_file() -> None:
    assert load_config_or_default(None) == Config()


def test_the_command_prints_all_addresses_and_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    local_access = make_local_access(App(name="wiki"), addresses=Addresses(8787, 8443))
    server = DevServer(local_access.config, Path("s"), None, None, is_encrypted=True, plain_sockets=1)
    print_addresses(local_access, TlsFiles(Path("ca.pem"), Path("server.pem")), server)
    error = capsys.readouterr().out
    client_id, name = next(iter(local_access.services.items()))
    for piece in (
        "https://localhost:8443/",
        "http://127.0.0.1:8787/",
        client_id,
        local_access.service_secret(client_id, name),
        "ca.pem",
    ):
        assert piece in error
    assert f"CF_ACCESS_AUDIENCE={local_access.config.apps[0].tag}" in error


def test_the_command_prints_no_environment_if_it_runs_the_app(capsys: pytest.CaptureFixture[str]) -> None:
    server = DevServer(Config(), Path("s"), "a:b", None, is_encrypted=False, plain_sockets=1)
    print_addresses(make_local_access(), None, server)
    assert "CF_ACCESS_AUDIENCE" not in capsys.readouterr().out


def test_reload_passes_the_server_to_the_watcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watcher:
        def __init__(self, config: object, *, target: DevServer, sockets: object) -> None:
            seen.append(target)

        def run(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli, "ChangeReload", Watcher)
    dev("module:app", port=0, reload=True)
    assert (seen[0].app, seen[0].is_encrypted) == ("module:app", False)


@pytest.mark.parametrize(("app", "upstream"), [(None, None), (None, "http://127.0.0.1:9"), ("quiet_app:app", None)])
def test_the_server_serves_its_app_or_upstream(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    app: str | None,
    upstream: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "quiet_app.py").write_text("async def app(scope, receive, send): ...")
    served = []
    monkeypatch.setattr(LocalServer, "run", lambda server: served.append(dict(os.environ)))
    listeners = Listeners.open("127.0.0.1", 0, 0)
    server = DevServer(Config(), folder / "s", app, upstream, is_encrypted=True, plain_sockets=len(listeners.plain))
    server([*listeners.plain, *listeners.encrypted])
    listeners.close()
    assert served[0]["CF_ACCESS_TEAM_DOMAIN"].startswith("http://127.0.0.1:")
    assert "https://localhost" in capsys.readouterr().out
    assert (folder / "s" / "ca.pem").exists()


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the command; return its process and the printed addresses."""
    command = [
        sys.executable,
        "-c",
        "from fastapi_cloudflare_access.cli import main; import sys; sys.exit(main())",
        "dev",
    ]
    process = subprocess.Popen(
        [*command, *arguments, "--port", "0"], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    found: dict[str, str] = {}
    try:
        for line in process.stdout:
            if address := re.search(r"^  (\S.*?)  +(http\S+)$", line.rstrip()):
                found[address[1]] = address[2]
            if "Client-Secret" in line:
                break
        yield process, found
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def answer_of(team: str, app: str) -> str:
    made = httpx.post(team + "control/api/token", json={"email": "ada@example.com"}, trust_env=False)
    return httpx.get(app, headers={"cf-access-token": made.json()["token"]}, trust_env=False).text


def test_the_command_runs_an_app_until_ctrl_c(folder: Path) -> None:
    (folder / "my_app.py").write_text(APP)
    with running(folder, "my_app:app") as (process, found):
        assert answer_of(found["team, control page"], found["app"]) == '"first"'
    assert process.returncode == 0


def test_reload_restarts_the_app_and_keeps_sessions(folder: Path) -> None:
    (folder / "my_app.py").write_text(APP)
    with running(folder, "my_app:app", "--reload") as (_, found):
        team, app = found["team, control page"], found["app"]
        made = httpx.post(team + "control/api/token", json={"email": "ada@example.com"}, trust_env=False)
        headers = {"cf-access-token": made.json()["token"]}
        assert httpx.get(app, headers=headers, trust_env=False).text == '"first"'
        text, end = "", time.monotonic() + 60
        while text != '"second"' and time.monotonic() < end:
            # Written again if nothing has happened: the watcher may have started after the first time.
            (folder / "my_app.py").write_text(APP.replace('"first"', '"second"'))
            pause = time.monotonic() + 8
            while text != '"second"' and time.monotonic() < pause:
                time.sleep(0.2)
                with suppress(httpx.TransportError):
                    text = httpx.get(app, headers=headers, trust_env=False, timeout=20).text
        assert text == '"second"'
