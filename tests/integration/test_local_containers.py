"""The example for containers works in network namespaces, as a container runtime makes them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/compose"
COMPOSE: Any = import_module("yaml").safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
IP, NSENTER = shutil.which("ip"), shutil.which("nsenter")


def can_make_namespaces() -> bool:
    if not (IP and NSENTER and (unshare := shutil.which("unshare"))):
        return False
    return subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options) as started:
        try:
            yield started
        finally:
            started.kill()


class Namespace:
    """A network namespace that lives as long as one process."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        script = "import time\nprint('made', flush=True)\ntime.sleep(600)"
        holder = stack.enter_context(process("unshare", "-n", sys.executable, "-c", script))
        assert holder.stdout is not None
        assert holder.stdout.readline() == "made\n"
        self.pid = str(holder.pid)
        self.run(str(IP), "link", "set", "lo", "up")

    def run(self, *command: str) -> str:
        entered = [str(NSENTER), "-t", self.pid, "-n", *command]
        return subprocess.run(entered, capture_output=True, text=True, check=True, timeout=30).stdout

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return self._stack.enter_context(process(str(NSENTER), "-t", self.pid, "-n", *command, **options))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


ASK = """
import httpx, json, sys, time
answers = {}
with httpx.Client(trust_env=False, base_url="http://10.99.0.2:8787", timeout=20) as client:
    for _ in range(400):
        try:
            client.get("/", headers={"host": "127.0.0.1:8787"})
            break
        except httpx.TransportError:
            time.sleep(0.05)
    made = client.post(
        "/control/api/token", json={"email": "ada@example.com"}, headers={"host": "127.0.0.1:8787"}
    )
    app = {"host": "localhost:8787"}
    answers["visitor"] = client.get("/me", headers=app).headers["location"].partition("/cdn-cgi")[0]
    for _ in range(400):
        user = client.get("/me", headers={**app, "cf-access-token": made.json()["token"]})
        if user.status_code != 502:
            break
        time.sleep(0.05)
    answers["user"] = user.json().get("email")
try:
    httpx.get("http://10.99.0.2:8000/me", trust_env=False, timeout=5)
    answers["app"] = "reached"
except httpx.ConnectError:
    answers["app"] = "not reached"
print(json.dumps(answers))
"""


@pytest.mark.skipif(not can_make_namespaces(), reason="needs the right to make network namespaces")
def test_an_app_in_a_shared_namespace_is_reached_through_the_edge_alone(stack: ExitStack, tmp_path: Path) -> None:
    pod, outside = Namespace(stack), Namespace(stack)
    pod.run(str(IP), "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", outside.pid)
    for namespace, address in ((pod, "10.99.0.2/24"), (outside, "10.99.0.1/24")):
        namespace.run(str(IP), "address", "add", address, "dev", "eth0")
        namespace.run(str(IP), "link", "set", "eth0", "up")
    shutil.copy(FOLDER / "access.toml", tmp_path)
    shutil.copy(ROOT / "examples/quickstart_app.py", tmp_path / "main.py")
    modules = {"cf-access": "fastapi_cloudflare_access", "uvicorn": "uvicorn"}
    for name, service in COMPOSE["services"].items():
        program, *arguments = [part.replace("/state", str(tmp_path / "state")) for part in service["command"]]
        settings = {**os.environ, **service.get("environment", {}), "PYTHONUNBUFFERED": "1"}
        assert name in ("access", "app")
        pod.start(sys.executable, "-m", modules[program], *arguments, cwd=tmp_path, env=settings)
    assert json.loads(outside.run(sys.executable, "-c", ASK)) == {
        "visitor": "http://127.0.0.1:8787",
        "user": "ada@example.com",
        "app": "not reached",
    }


def test_the_guide_shows_the_files_of_the_example() -> None:
    page = (ROOT / "docs/guides/local-access-containers.md").read_text(encoding="utf-8")
    for name in ("compose.yaml", "access.toml", "Dockerfile", ".dockerignore"):
        assert f'title="{name}" }}\n{(FOLDER / name).read_text(encoding="utf-8")}```' in page


def test_the_image_of_the_example_is_built_once_and_leaves_out_keys_and_secrets() -> None:
    access, app = COMPOSE["services"]["access"], COMPOSE["services"]["app"]
    assert access["image"] == app["image"]
    assert [service.get("build") for service in (access, app)] == [".", None]
    assert app["pull_policy"] == "never"
    ignored = (FOLDER / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".cf-access", ".env", ".venv"} <= {*ignored}


def test_the_example_publishes_the_port_to_this_computer_alone() -> None:
    access, app = COMPOSE["services"]["access"], COMPOSE["services"]["app"]
    assert access["ports"] == ["127.0.0.1:8787:8787"]
    assert app["network_mode"] == "service:access"
    assert "ports" not in app
    assert app["environment"]["CF_ACCESS_AUDIENCE"] in (FOLDER / "access.toml").read_text(encoding="utf-8")
