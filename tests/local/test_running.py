"""A local Access in a thread, with an app that verifies its tokens."""

import asyncio
import importlib
import os
import ssl
import sys
import threading
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.types import Receive, Scope, Send

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.local import App, Config, RunningAccess, Team, run_local_access
from fastapi_cloudflare_access.local.backends import InProcessApp
from fastapi_cloudflare_access.local.control_commands import ControlError
from fastapi_cloudflare_access.local.server import LocalServer

QUIET = "async def app(scope, receive, send): ...\n"


def protected(local: RunningAccess) -> FastAPI:
    access = CloudflareAccess(team_domain=local.team_domain, audience=local.audience)
    app = FastAPI(lifespan=access.lifespan)

    @app.get("/me")
    async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
        return user.email

    @app.post("/jobs", dependencies=[Depends(access.service)])
    async def jobs() -> str:
        return "done"

    return app


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}, trust_env=False)


def test_an_app_accepts_only_tokens_of_the_local_access() -> None:
    with run_local_access() as local:
        local.mount(protected(local))
        token = local.control("token", email="ada@example.com")["token"]
        assert get(local.url("/me"), cf_access_token=token).json() == "ada@example.com"
        assert get(local.url("/me"), cf_access_token=token[:-4] + "AAAA").status_code == 302
        called = httpx.post(local.url("/jobs"), headers=local.service_headers("nightly-backup"), trust_env=False)
        assert called.json() == "done"
        assert local.environment["CF_ACCESS_TEAM_DOMAIN"] == local.team_domain


def test_the_app_rejects_a_token_of_a_shifted_clock_that_the_edge_accepts() -> None:
    with run_local_access() as local:
        local.mount(protected(local))
        local.control("clock", seconds=3600)
        token = local.control("token", email="ada@example.com")["token"]
        response = get(local.url("/me"), cf_access_token=token)
        assert (response.status_code, response.headers["www-authenticate"][:17]) == (401, "Cloudflare-Access")


def test_the_app_accepts_tokens_after_a_rotation() -> None:
    with run_local_access() as local:
        local.mount(protected(local))
        local.control("rotate")
        token = local.control("token", email="ada@example.com")["token"]
        assert get(local.url("/me"), cf_access_token=token).status_code == 200


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_apps_are_found_by_name_and_the_first_is_the_default() -> None:
    config = Config(apps=(App(name="a"), App(name="b", host="b.localhost")))
    with run_local_access(answering, config=config) as local:
        port = local.local_access.addresses.port
        assert (local.url("/x"), local.url(app="b")) == (f"http://localhost:{port}/x", f"http://b.localhost:{port}/")
        assert local.audience == local.app("a").tag
        assert get(local.url(), **local.service_headers()).status_code == 204
        pieces = iter([b'{"email":', b'"a@b"}'])
        made = httpx.post(
            f"{local.team_domain}/control/api/revoke",
            content=pieces,
            headers={"content-type": "application/json"},
            trust_env=False,
        )
        assert made.json() == {"done": "revoke", "ended": 0}
        with pytest.raises(KeyError):
            local.app("c")
        with pytest.raises(ControlError):
            local.control("nothing")


def test_the_state_folder_keeps_the_keys(tmp_path: Path) -> None:
    kids = []
    for _ in range(2):
        with run_local_access(state=tmp_path) as local:
            kids.append([key.kid for key in local.local_access.team.keys])
    assert kids[0] == kids[1]


def test_an_app_can_be_mounted_by_its_import_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = "import os\nteam = os.environ['CF_ACCESS_TEAM_DOMAIN']\n" + QUIET
    (tmp_path / "mounted_app_of_a_test.py").write_text(code)
    with run_local_access() as local:
        local.mount("mounted_app_of_a_test:app")
        assert sys.modules.pop("mounted_app_of_a_test").team == local.team_domain
        first = local._edge.backend
        local.mount("mounted_app_of_a_test:app")
        assert local._edge.backend is first
        local.forward_to("http://127.0.0.1:9")
        assert local._edge.backend is not first
    assert "CF_ACCESS_TEAM_DOMAIN" not in os.environ


def test_an_app_that_was_imported_before_is_mounted_as_a_copy_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "earlier_app_of_a_test").mkdir()
    (tmp_path / "earlier_app_of_a_test/__init__.py").write_text("")
    (tmp_path / "earlier_app_of_a_test/settings.py").write_text(
        "import os\nteam = os.environ['CF_ACCESS_TEAM_DOMAIN']\n"
    )
    code = "from earlier_app_of_a_test.settings import team\n"
    code += "class App:\n    name = team\n    async def __call__(self, scope, receive, send): ...\napp = App()\n"
    (tmp_path / "earlier_app_of_a_test/main.py").write_text(code)
    monkeypatch.setenv("CF_ACCESS_TEAM_DOMAIN", "acme")
    earlier = importlib.import_module("earlier_app_of_a_test.main")
    with run_local_access() as local:
        local.mount("earlier_app_of_a_test.main:app")
        backend = local._edge.backend
        assert isinstance(backend, InProcessApp)
        assert getattr(backend.app, "name", "") == local.team_domain
    assert sys.modules["earlier_app_of_a_test.main"] is earlier
    assert earlier.app.name == "acme"
    for name in ("earlier_app_of_a_test.main", "earlier_app_of_a_test.settings", "earlier_app_of_a_test"):
        del sys.modules[name]


def test_the_local_access_stops_with_its_context() -> None:
    with run_local_access() as local:
        assert any(thread.name == "local-access" for thread in threading.enumerate())
    with pytest.raises(RuntimeError, match="has stopped"):
        local.control("rotate")
    with pytest.raises(httpx.ConnectError):
        get(local.team_domain)


def test_https_is_served_with_a_local_certificate() -> None:
    with run_local_access(answering, tls_port=0) as local:
        assert local.ca_file is not None
        trust = ssl.create_default_context(cafile=local.ca_file)
        url = local.url("/x")
        assert url.startswith("https://localhost:")
        response = httpx.get(url, headers=local.service_headers(), verify=trust, trust_env=False)
        assert response.status_code == 204
        login = httpx.get(url, verify=trust, trust_env=False)
        assert login.headers["location"].startswith(local.team_domain)


def test_a_real_team_domain_is_served_over_tls() -> None:
    config = Config(team=Team(domain="acme.cloudflareaccess.com"))
    with run_local_access(answering, config=config, tls_port=0) as local:
        assert local.team_domain == "https://acme.cloudflareaccess.com"
        assert local.environment["SSL_CERT_FILE"] == str(local.ca_file)
        trust = ssl.create_default_context(cafile=local.ca_file)
        with httpx.Client(verify=trust, trust_env=False) as client:
            response = client.get(
                f"https://127.0.0.1:{local.local_access.addresses.tls_port}/cdn-cgi/access/certs",
                headers={"host": "acme.cloudflareaccess.com"},
                extensions={"sni_hostname": "acme.cloudflareaccess.com"},
            )
    assert len(response.json()["keys"]) == 2


def test_stopping_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()

    async def run(server: LocalServer) -> None:
        server.main.on_start()
        await asyncio.to_thread(stuck.wait, 10)

    monkeypatch.setattr(LocalServer, "run", lambda server: asyncio.run(run(server)))
    with pytest.raises(TimeoutError, match="did not stop in time"), run_local_access(time_limit=0.2):
        pass
    stuck.set()


def test_a_server_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalServer, "run", lambda server: None)
    with pytest.raises(RuntimeError, match="did not start"), run_local_access():
        pass


def test_an_app_that_does_not_start_is_reported() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    with run_local_access() as local, pytest.raises(RuntimeError, match="lifespan failed"):
        local.mount(failing)
