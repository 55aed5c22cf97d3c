"""The command `cf-access dev`: invalid options, and a running command."""

import asyncio
import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import uvicorn
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from support.local_rig import make_local_access
from uvicorn import supervisors

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import cli, dev_server
from fastapi_cloudflare_access.local.app_loading import AppImportError
from fastapi_cloudflare_access.local.backends import FailedApp, InProcessApp, NoBackend
from fastapi_cloudflare_access.local.cli import RISK_FLAG, dev
from fastapi_cloudflare_access.local.config import App, Config, ServiceToken
from fastapi_cloudflare_access.local.config_file import load_config_or_default
from fastapi_cloudflare_access.local.dev_server import AppSource, DevServer, print_addresses
from fastapi_cloudflare_access.local.local_access import Addresses
from fastapi_cloudflare_access.local.request_log import logger
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


STREAM = """\
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.Event().wait()
"""


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Restore the logger of request lines, which the command configures for its whole process."""
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


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
        ([], {"factory": True}, "--factory needs an app"),
        (["a:b"], {"env_file": Path("missing.env")}, "--env-file missing.env is not a file"),
        (["os:sep"], {"factory": True}, "os:sep is not a function"),
        ([], {"upstream": "https://127.0.0.1:1", "upstream_ca": Path("missing.pem")}, "missing.pem is not a file"),
        ([], {"host": "0.0.0.0"}, RISK_FLAG),
        (["nothing_here:app"], {}, 'Could not import module "nothing_here"; it is looked for in /'),
        (["nothing_here.at_all:app"], {}, "the module nothing_here does not exist"),
        (["os:nothing_here"], {}, "Attribute"),
        (["os"], {}, "os names no app in the module; write os:app"),
        (["src/my_app.py"], {}, "such as my_app:app"),
        (["os:sep"], {"env_file": Path("binary.env")}, "binary.env is not an env file"),
        ([], {"config": Path("missing.toml")}, "missing.toml cannot be read"),
    ],
    ids=[str(number) for number in range(16)],
)
def test_an_invalid_option_is_rejected_with_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], options: dict[str, object], problem: str
) -> None:
    Path("binary.env").write_bytes(b"A=\xff")
    error = error_of(capsys, *arguments, **options)
    assert error.startswith("cf-access dev: ")
    assert problem in error


def test_an_env_file_that_cannot_be_read_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(dev_server, "load_dotenv", fail)
    with pytest.raises(ConfigurationError, match=r"--env-file x\.env cannot be read: Permission denied"):
        AppSource(env_file=Path("x.env")).load_env_file()


def test_the_command_starts_without_what_only_other_commands_use() -> None:
    code = """
import sys
from fastapi_cloudflare_access.cli import main
assert main(["dev", "--help"]) == 0
unused = ["rich", "fastapi_cloudflare_access.cli.commands", "fastapi_cloudflare_access.testing._audit.running"]
assert not [name for name in unused if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_loopback_address_is_accepted_without_the_flag() -> None:
    for host in ("127.0.0.2", "::1", "localhost"):
        cli._check_host(host, risk=False)


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def x(:", "SyntaxError: "),
        ("def app(): return 1 / 0", "ZeroDivisionError: division by zero"),
    ],
    ids=["import", "syntax", "factory"],
)
def test_an_app_that_raises_shows_only_its_own_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], code: str, last: str
) -> None:
    (folder / "broken_app_of_mine.py").write_text(code)
    with pytest.raises(SystemExit) as ended:
        dev("broken_app_of_mine:app", port=0)
    sys.modules.pop("broken_app_of_mine", None)
    error = capsys.readouterr().err
    lines = error.splitlines()
    assert ended.value.code == 1
    assert lines[0] == "cf-access dev: broken_app_of_mine:app cannot be imported:"
    assert lines[-1].startswith(last)
    assert "broken_app_of_mine.py" in error
    assert len(lines) <= 5


def test_a_real_team_domain_needs_tls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "access.toml").write_text('[team]\ndomain = "acme.cloudflareaccess.com"\n')
    assert "needs --tls" in error_of(capsys)


def test_every_option_is_in_the_reference() -> None:
    reference = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text(encoding="utf-8")
    section = reference.partition("## cf-access dev")[2].partition("\n## ")[0]
    names = {"--" + name.replace("_", "-") for name in inspect.signature(dev).parameters} - {
        "--app",
        "--risk",
        "--access-log",
    }
    assert {option.partition(" ")[0] for option in re.findall(r"^\| `(--[^`]+)`", section, re.MULTILINE)} == {
        *names,
        "--no-access-log",
        RISK_FLAG,
    }


def test_init_writes_a_file_that_dev_reads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev(init=True)
    assert "access.toml is written" in capsys.readouterr().out
    assert len(load_config_or_default(None).apps) == 2
    assert "already exists" in error_of(capsys, init=True)
    assert load_config_or_default(None) == load_config_or_default(folder / "access.toml")


def test_the_defaults_apply_without_a_file() -> None:
    assert load_config_or_default(None) == Config()


def test_the_command_prints_all_addresses_and_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    local_access = make_local_access(App(name="wiki"), addresses=Addresses(8787, 8443))
    print_addresses(local_access, TlsFiles(Path("ca.pem"), Path("server.pem")), AppSource())
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


def test_the_command_prints_the_environment_of_an_app_that_it_runs_too(capsys: pytest.CaptureFixture[str]) -> None:
    wiki = App(name="wiki", upstream="http://127.0.0.1:1")
    shop = App(name="shop", host="shop.localhost")
    print_addresses(make_local_access(wiki, shop), None, AppSource("a:b"))
    output = capsys.readouterr().out
    team = "  CF_ACCESS_TEAM_DOMAIN=http://127.0.0.1:8787\n"
    assert f"Set here for shop\n{team}  CF_ACCESS_AUDIENCE={shop.tag}\n" in output
    assert f"Start wiki with\n{team}  CF_ACCESS_AUDIENCE={wiki.tag}\n" in output


def test_each_server_gets_the_tags_of_its_own_apps(capsys: pytest.CaptureFixture[str]) -> None:
    wiki = App(name="wiki", upstream="http://127.0.0.1:1")
    shop = App(name="shop", host="shop.localhost", upstream="http://127.0.0.1:2")
    print_addresses(make_local_access(wiki, shop), None, AppSource())
    output = capsys.readouterr().out
    assert (
        f"Start wiki with\n  CF_ACCESS_TEAM_DOMAIN=http://127.0.0.1:8787\n  CF_ACCESS_AUDIENCE={wiki.tag}\n" in output
    )
    assert f"CF_ACCESS_AUDIENCE={shop.tag}\n" in output
    assert f"{wiki.tag},{shop.tag}" not in output


def test_names_and_secrets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = [ServiceToken(name="[/x] :smile:", client_secret="se[red]cret")]
    print_addresses(make_local_access(App(name="[bold]"), service_tokens=tokens), None, AppSource())
    output = capsys.readouterr().out
    for text in ("[/x] :smile:", "CF-Access-Client-Secret: se[red]cret", "[bold]"):
        assert text in output


def test_reload_passes_the_server_to_the_watcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watcher:
        def __init__(self, config: object, *, target: DevServer, sockets: object) -> None:
            seen.append(target)

        def run(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(dev_server, "Reloader", Watcher)
    (folder / "x.env").write_text("")
    dev("module:app", port=0, reload=True, env_file=Path("x.env"))
    assert (seen[0].source.name, seen[0].is_encrypted) == ("module:app", False)


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
    source = AppSource(app, upstream=upstream)
    server = DevServer(Config(), folder / "s", source, is_encrypted=True, plain_sockets=len(listeners.plain))
    server([*listeners.plain, *listeners.encrypted])
    listeners.close()
    assert served[0]["CF_ACCESS_TEAM_DOMAIN"].startswith("http://127.0.0.1:")
    assert "https://localhost" in capsys.readouterr().out
    assert (folder / "s" / "ca.pem").exists()


@pytest.mark.parametrize(("is_logged", "level"), [(True, logging.INFO), (False, logging.WARNING)])
def test_the_lines_of_requests_go_to_standard_error_unless_they_are_off(is_logged: bool, level: int) -> None:  # noqa: FBT001
    dev_server.set_up_logging(logs_requests=is_logged)
    dev_server.set_up_logging(logs_requests=is_logged)
    assert (logger.level, len(logger.handlers), logger.propagate) == (level, 1, False)


def make_server(folder: Path, **options: Any) -> DevServer:
    return DevServer(Config(), folder / "s", AppSource("a:b"), is_encrypted=False, plain_sockets=1, **options)


def test_a_reload_reads_the_configuration_file_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = make_server(folder)
    (folder / "access.toml").write_text("[team]\nname = 'new'\n")
    reloaded = server.reloaded()
    assert reloaded.config.team.name == "new"
    (folder / "access.toml").write_text("[team]\nname = 5\n")
    assert reloaded.reloaded() is reloaded
    assert caplog.messages == [
        "access.toml, line 2, team.name: must be a text in quotes; the last valid configuration stays in use"
    ]
    (folder / "access.toml").write_text("[team]\ndomain = 'acme.cloudflareaccess.com'\n")
    assert reloaded.reloaded() is reloaded
    assert "needs --tls" in caplog.messages[-1]


def test_the_reloader_starts_the_next_process_with_the_new_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors.ChangeReload, "restart", lambda _: None)
    watching = uvicorn.Config("a:b", reload=True, log_config=None)
    reloader = dev_server.Reloader(watching, target=make_server(folder), sockets=[])
    (folder / "access.toml").write_text("[team]\nname = 'new'\n")
    reloader.restart()
    assert reloader.target.config.team.name == "new"


def test_an_error_in_a_process_of_a_reload_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "s").write_text("a file, and no folder")
    with pytest.raises(ConfigurationError):
        make_server(folder)()
    monkeypatch.setattr(dev_server, "parent_process", object)
    with pytest.raises(SystemExit) as ended:
        make_server(folder)()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "cf-access dev: s cannot be written: Not a directory\n".replace(
        " s ", f" {folder / 's'} "
    )


@pytest.mark.parametrize(("app", "reports"), [("quiet_app:app", 1), (None, 0)])
def test_the_open_routes_of_an_app_that_runs_here_are_reported_once_after_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, app: str | None, reports: int
) -> None:
    (folder / "quiet_app.py").write_text("async def app(scope, receive, send): ...")
    reported: list[tuple[object, ...]] = []

    @contextmanager
    def reporting(*asked: object, is_factory: bool) -> Iterator[Any]:
        yield lambda: reported.append((*asked, is_factory))

    monkeypatch.setattr(dev_server, "reporting_open_routes", reporting)
    monkeypatch.setattr(LocalServer, "run", lambda server: server.main.on_start())
    listeners = Listeners.open("127.0.0.1", 0, None)
    source = AppSource(app, folder)
    DevServer(Config(), folder / "s", source, is_encrypted=False, plain_sockets=2)([*listeners.plain])
    listeners.close()
    assert reported == [(app, folder, False)] * reports


@pytest.mark.parametrize("name", ["broken_again:app", "os", "nothing_here:app"])
def test_with_reload_an_app_that_cannot_be_imported_gets_a_page_until_it_is_corrected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / "broken_again.py").write_text("def x(:")
    server = replace(make_server(folder), source=AppSource(name, folder))
    with pytest.raises((AppImportError, ConfigurationError)):
        server._backend()
    monkeypatch.setattr(dev_server, "parent_process", object)
    backend = server._backend()
    assert isinstance(backend, FailedApp)
    assert capsys.readouterr().err.startswith("cf-access dev: ")
    answer = TestClient(backend).get("/", headers={"accept": "application/json"})
    assert answer.status_code == 502
    assert answer.json()["message"].startswith("The app did not start. It cannot be imported; read the error in the")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("backend", "is_written"), [(NoBackend(), True), (FailedApp(), False), ("starts", True), ("fails", False)]
)
async def test_the_ready_file_is_written_once_the_app_has_started(
    folder: Path,
    backend: Any,
    is_written: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete" if backend == "starts" else "lifespan.startup.failed"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    used = InProcessApp(app) if isinstance(backend, str) else backend
    await used.start()
    make_server(folder, ready_file=folder / "ready.json")._announce(used, make_local_access(), None)
    make_server(folder)._announce(used, make_local_access(), None)
    await asyncio.gather(*dev_server._announcements)
    assert (folder / "ready.json").exists() is is_written
    await used.stop()


@pytest.mark.anyio
async def test_a_ready_file_that_cannot_be_written_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_server(folder, ready_file=folder / "no" / "x.json")._announce(NoBackend(), make_local_access(), None)
    await asyncio.gather(*dev_server._announcements)
    assert "cannot be written" in caplog.text


def test_an_app_that_names_another_team_in_its_code_is_warned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = APP.replace("CloudflareAccess()", "CloudflareAccess(team_domain='acme', audience='a1' * 32)")
    (folder / "app_of_another_team.py").write_text(code)
    monkeypatch.setattr(LocalServer, "run", lambda _: None)
    listeners = Listeners.open("127.0.0.1", 0, None)
    source = AppSource("app_of_another_team:app")
    server = DevServer(Config(), folder / "s", source, is_encrypted=False, plain_sockets=len(listeners.plain))
    server(listeners.plain)
    listeners.close()
    sys.modules.pop("app_of_another_team", None)
    assert "the code sets team_domain to https://acme.cloudflareaccess.com" in caplog.text


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
            if line.startswith("  CF_ACCESS_AUDIENCE="):
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


def test_the_entrypoint_and_the_env_file_are_used_and_the_ready_file_says_when(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.fastapi]\nentrypoint = 'my_app:create_app'\n")
    (folder / "src").mkdir()
    factory = "\ndef create_app():\n    import os\n    assert os.environ['OWN'] == 'yes'\n    return app\n"
    (folder / "src" / "my_app.py").write_text(APP + factory)
    (folder / "my.env").write_text("OWN=yes\nCF_ACCESS_TEAM_DOMAIN=acme\n")
    with running(folder, "--app-dir", "src", "--env-file", "my.env", "--ready-file", "ready.json") as (process, _):
        end = time.monotonic() + 30
        while not (folder / "ready.json").exists() and time.monotonic() < end:
            time.sleep(0.05)
        ready = json.loads((folder / "ready.json").read_text())
        assert answer_of(ready["team_domain"] + "/", ready["apps"][0]["url"]) == '"first"'
    assert process.returncode == 0
    assert not (folder / "ready.json").exists()


def test_sigterm_ends_contexts_and_is_then_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, dev_server.exit_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert (ended.value.code, signal.getsignal(signal.SIGTERM)) == (143, before)


@pytest.mark.parametrize(("options", "code"), [((), 143), (("--reload",), 0)], ids=["alone", "reload"])
def test_sigterm_removes_the_ready_file_with_its_secrets(folder: Path, options: tuple[str, ...], code: int) -> None:
    (folder / "my_app.py").write_text(APP)
    ready = folder / "ready.json"
    with running(folder, "my_app:app", "--ready-file", "ready.json", *options) as (process, _):
        end = time.monotonic() + 30
        while not ready.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert ready.exists()
        process.terminate()
        process.wait(30)
    assert (process.returncode, ready.exists()) == (code, False)


@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["alone", "reload"])
def test_ctrl_c_with_an_open_stream_ends_without_a_word(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "my_app.py").write_text(STREAM)
    with (
        running(folder, "my_app:app", "--no-access-log", *options) as (process, found),
        httpx.Client(trust_env=False) as client,
    ):
        made = client.post(found["team, control page"] + "control/api/token", json={"email": "ada@example.com"})
        headers = {"cf-access-token": made.json()["token"]}
        with client.stream("GET", found["app"], headers=headers) as response:
            assert next(response.iter_raw()) == b"first"
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert process.stdout.read() == ""
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
