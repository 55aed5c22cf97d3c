"""pytest finds the fixtures, they isolate each test, and unused fixtures import nothing."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

import pytest_fastapi_cloudflare_access
from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.local import RunningAccess
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

access = CloudflareAccess(
    team_domain="acme", audience="a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
)
app = FastAPI()
ROOT = Path(__file__).parents[2]

SUITE = """
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_cloudflare_access import CloudflareAccess, UserClaims

access = CloudflareAccess(team_domain="acme", audience="a1" * 32)
app = FastAPI()


@app.get("/")
async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
    return user.email


@pytest.mark.parametrize("run", range(4))
def test_sync(access_as_user, run):
    access_as_user(access)
    assert TestClient(app).get("/").json() == "ada@example.com"


@pytest.mark.{mark}
async def test_async(access_as_user, access_team):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        with access_team.patch(access):
            async with access:
                access_team.rotate()
                headers = access_team.headers(access_team.user("ada@example.com"))
                assert (await client.get("/", headers=headers)).status_code == 200
        assert (await client.get("/")).status_code == 401
        access_as_user(access)
        assert (await client.get("/")).status_code == 200
"""


@app.get("/user")
async def user(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
    return user.email


@app.get("/service")
async def service(service: Annotated[ServiceClaims, Depends(access.service)]) -> str:
    return service.common_name


def test_pytest_finds_the_plugin_by_itself() -> None:
    names = {entry.name: entry.value for entry in entry_points(group="pytest11")}
    assert names["fastapi_cloudflare_access"] == "pytest_fastapi_cloudflare_access"


def test_a_user_is_the_caller_until_the_end_of_the_test(access_as_user: Callable[..., UserClaims]) -> None:
    user = access_as_user(access, "bob@example.com", groups=["admins"])
    assert user.custom["groups"] == ["admins"]
    assert TestClient(app).get("/user").json() == "bob@example.com"


def test_a_service_is_the_caller_until_the_end_of_the_test(access_as_service: Callable[..., ServiceClaims]) -> None:
    service = access_as_service(access, "backup-bot", expires_in=60)
    assert service.exp - service.iat == 60
    assert TestClient(app).get("/service").json() == service.common_name


def test_the_last_caller_counts(
    access_as_user: Callable[..., UserClaims], access_as_service: Callable[..., ServiceClaims]
) -> None:
    access_as_user(access)
    access_as_service(access)
    assert TestClient(app).get("/user").status_code == 403


@pytest.mark.parametrize("run", range(2))
def test_no_caller_is_left_from_another_test(run: int) -> None:
    assert (app.dependency_overrides, TestClient(app).get("/user").status_code) == ({}, 401)


@pytest.mark.parametrize("run", range(2))
def test_a_team_is_new_in_each_test_and_its_keys_are_not(access_team: FakeTeam, run: int) -> None:
    assert access_team.keys == FakeTeam("acme").keys
    access_team.rotate()
    assert access_team.keys != FakeTeam("acme").keys


def test_certs_are_on_a_real_socket(access_certs: CertsServer, access_team: FakeTeam) -> None:
    assert access_certs.origin == access_team.issuer
    url = f"{access_team.issuer}/cdn-cgi/access/certs"
    assert httpx.get(url, trust_env=False).content == access_team.certs_body()


def test_an_object_on_the_machines_clock_takes_the_tokens_of_certs_on_a_real_socket(
    access_certs: CertsServer, access_team: FakeTeam
) -> None:
    served = CloudflareAccess(team_domain=access_certs.origin, audience=access_team.audience)
    protected = FastAPI(lifespan=served.lifespan, dependencies=[Depends(served)])
    protected.add_api_route("/", lambda: "in")
    with TestClient(protected) as client:
        user = access_team.user("ada@example.com")
        assert client.get("/", headers=access_team.headers(user)).status_code == 200
        assert client.get("/", headers=access_team.headers(access_team.forge("expired"))).status_code == 401


def run(folder: Path, *arguments: str, options: Iterable[str] = ()) -> str:
    """Run pytest in another process and return its output."""
    command = [
        sys.executable,
        *options,
        "-m",
        "pytest",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "-q",
        *arguments,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_the_local_access_has_no_trouble_of_the_test_before(local_access: RunningAccess) -> None:
    local_access.control("clock", seconds=5)
    local_access.control("token", email="ada@example.com")
    assert os.environ["CF_ACCESS_TEAM_DOMAIN"] == local_access.team_domain


@pytest.mark.parametrize("run", range(2))
def test_the_local_access_starts_once_and_has_the_right_time(local_access: RunningAccess, run: int) -> None:
    assert local_access.local_access.clock.shift == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError(name="trustme")

    monkeypatch.setattr(pytest_fastapi_cloudflare_access, "import_module", missing)
    with pytest.raises(
        pytest.UsageError, match=r"needs trustme: pip install 'fastapi-cloudflare-access\[local,testing\]'"
    ):
        pytest_fastapi_cloudflare_access._local()


def test_a_project_that_does_not_use_the_fixtures_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_unrelated.py").write_text(
        "import sys\n\n\ndef test_it():\n"
        "    loaded = {'fastapi_cloudflare_access', 'fastapi', 'jose', 'cryptography'} & {*sys.modules}\n"
        "    assert loaded == set()\n"
    )
    assert "1 passed" in run(tmp_path, "-W", "error", "-p", "no:asyncio", "-p", "no:valkey")


def test_each_fixture_is_documented(tmp_path: Path) -> None:
    _, *fixtures = run(tmp_path, "--fixtures").split("\naccess_")
    documented = {text.split(" -- ")[0]: text.splitlines()[1].strip() for text in fixtures}
    assert set(documented) == {"team", "as_user", "as_service", "certs"}
    for name in ("local_access", "local_access_server", "local_access_config"):
        assert any(f"\n{name} " in text for text in fixtures)
    assert "no docstring available" not in documented.values()


@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        ("anyio", ("-p", "no:asyncio")),
        ("anyio", ("-p", "no:asyncio", "-n", "2")),
        ("asyncio", ("-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function")),
    ],
    ids=["anyio", "anyio and xdist", "pytest-asyncio"],
)
def test_they_work_in_suites_of_every_kind(tmp_path: Path, mark: str, arguments: tuple[str, ...]) -> None:
    if mark == "asyncio":
        pytest.importorskip("pytest_asyncio")
    (tmp_path / "test_suite.py").write_text(SUITE.replace("{mark}", mark))
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    assert "5 passed" in run(tmp_path, "-W", "error", *arguments)


def test_a_protected_app_loads_neither_the_kit_nor_the_issuer() -> None:
    script = """
import sys
from typing import Annotated
from fastapi import Depends, FastAPI
from fastapi_cloudflare_access import CloudflareAccess, UserClaims
access = CloudflareAccess(team_domain="acme", audience="a1" * 32)
app = FastAPI(lifespan=access.lifespan, dependencies=[Depends(access)])
app.openapi()
ours = [name for name in sys.modules if name.startswith("fastapi_cloudflare_access.")]
print([name for name in ours if name.partition(".")[2].startswith(("testing", "_issuer", "_minting"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_guide_shows_the_tests_of_the_example() -> None:
    shown = (ROOT / "docs/guides/testing.md").read_text()
    assert f"\n{(ROOT / 'examples/test_testing_app.py').read_text()}```" in shown


def test_the_guide_names_every_fault() -> None:
    shown = (ROOT / "docs/guides/testing.md").read_text()
    ways = {name for name in vars(CertsServer.__mro__[1]) if not name.startswith("_")}
    faults = ways - {"fetches", "answer"}
    assert {name for name in faults if f"`{name}(" not in shown and f".{name}(" not in shown} == set()
