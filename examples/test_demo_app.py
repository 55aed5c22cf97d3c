"""What the demo's page promises."""

import sys
from collections.abc import Iterator
from importlib import import_module

import httpx
import pytest

from fastapi_cloudflare_access.local import Config, Person, RunningAccess, run_local_access

ADA = Person(email="ada@example.com", groups=("admins",), custom={"department": "Engines & <Co>", "since": 1843})


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningAccess]:
    with run_local_access(config=Config(people=(ADA,))) as running:
        service = running.service_headers()
        names = {"CF-Access-Client-Id": "DEMO_CLIENT_ID", "CF-Access-Client-Secret": "DEMO_CLIENT_SECRET"}
        settings = running.environment | {names[name]: value for name, value in service.items()}
        for name, value in {**settings, "DEMO_ORIGIN": running.url("")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delitem(sys.modules, "demo_app", raising=False)
        running.mount(import_module("demo_app").app)
        yield running


def ask(local: RunningAccess, method: str, path: str, email: str = ADA.email) -> httpx.Response:
    token = local.control("token", email=email)["token"]
    return httpx.request(method, local.url(path), headers={"cf-access-token": token}, trust_env=False)


def test_users_see_their_typed_claims(local: RunningAccess) -> None:
    text = ask(local, "GET", "/").text
    assert "<h1>Hello ada@example.com</h1>" in text
    assert "You are in Engines &amp; &lt;Co&gt;, since 1843. Your groups: admins." in text
    known = {"email": ADA.email, "department": "Engines & <Co>", "since": 1843, "groups": ["admins"]}
    assert ask(local, "GET", "/me").json() == known


def test_users_without_custom_claims_see_defaults(local: RunningAccess) -> None:
    text = ask(local, "GET", "/", "bob@example.com").text
    assert "You are in no department, since always. Your groups: none." in text


@pytest.mark.parametrize(("caller", "result"), [("service", "202 Accepted: "), ("me", "403 Forbidden: ")])
def test_only_the_service_starts_a_backup(local: RunningAccess, caller: str, result: str) -> None:
    assert f'<p role="status">{result}' in ask(local, "POST", f"/try/{caller}").text


def test_other_calls_are_refused(local: RunningAccess) -> None:
    assert ask(local, "POST", "/try/other").status_code == 422
    assert httpx.post(local.url("/try/service"), trust_env=False).status_code == 302
