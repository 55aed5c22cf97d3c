"""`cloudflared access login` gets its tokens from a browser that logs in."""

import json
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from support.local_rig import APP, Browser, make_local_access
from support.nacl import open_box

from fastapi_cloudflare_access.local import cli_login
from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.local_access import Addresses

DOMAIN = "acme.cloudflareaccess.com"
STORE = "https://login.cloudflareaccess.org/transfer/"


class Cloudflared:
    """The part of cloudflared that opens a browser and fetches the tokens."""

    def __init__(self, browser: Browser, **query: str) -> None:
        self.browser = browser
        self.key = X25519PrivateKey.generate()
        self.token = urlsafe_b64encode(self.key.public_key().public_bytes_raw()).decode()
        parameters = {"token": self.token, "send_org_token": "true", "edge_token_transfer": "true", **query}
        self.address = f"{APP}/cdn-cgi/access/cli?{urlencode(parameters)}"

    def fetch(self) -> Any:
        return self.browser.open(STORE + self.token)

    def tokens(self) -> dict[str, str]:
        response = self.fetch()
        sender = urlsafe_b64decode(response.headers["service-public-key"])
        tokens: dict[str, str] = json.loads(open_box(b64decode(response.content), sender, self.key))
        return tokens


@pytest.fixture(autouse=True)
def short_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_login, "LONG_POLL", 0)


@pytest.fixture
def browser() -> Browser:
    return Browser(make_local_access(addresses=Addresses(8787, 443, DOMAIN)))


def test_cloudflared_gets_both_tokens_once(browser: Browser) -> None:
    cloudflared = Cloudflared(browser, aud=browser.local_access.config.apps[0].tag)
    assert cloudflared.fetch().status_code == 404
    assert "You are logged in" in browser.log_in(url=cloudflared.address).text
    tokens = cloudflared.tokens()
    team = browser.local_access.team
    assert (team.verified_claims(tokens["app_token"], "app") or {})["email"] == "ada@example.com"
    assert (team.verified_claims(tokens["org_token"], "org") or {})["email"] == "ada@example.com"
    browser.jar.clear()
    assert browser.open(APP + "/", cf_access_token=tokens["app_token"]).text == "hello"
    assert cloudflared.fetch().status_code == 404


def test_a_fetch_waits_for_the_login(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    cloudflared = Cloudflared(browser)
    looks: list[float] = []

    async def sleep(seconds: float) -> None:
        looks.append(seconds)
        browser.local_access.transfers[cloudflared.key.public_key().public_bytes_raw()] = (b"x", "key")

    monkeypatch.setattr(cli_login, "LONG_POLL", 25)
    monkeypatch.setattr(cli_login, "sleep", sleep)
    assert cloudflared.fetch().content == b"x"
    assert looks == [cli_login.POLL]


def test_a_user_without_access_gets_no_tokens() -> None:
    app = App(name="app", policies=(Policy(emails=("grace@example.com",)),))
    browser = Browser(make_local_access(app, addresses=Addresses(8787, 443, DOMAIN)))
    cloudflared = Cloudflared(browser)
    assert browser.log_in(url=cloudflared.address).status_code == 403
    assert cloudflared.fetch().status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        {"token": "x"},
        {"token": "\u00fc"},
        {"token": ""},
        {"aud": "f" * 64},
        {"token": urlsafe_b64encode(bytes(31)).decode()},
    ],
    ids=["short", "not ascii", "empty", "other app", "31 bytes"],
)
def test_an_invalid_request_is_rejected(browser: Browser, query: dict[str, str]) -> None:
    assert browser.open(Cloudflared(browser, **query).address).status_code == 400
    assert browser.open(STORE + "x").status_code == 400


def test_an_app_of_another_host_is_rejected() -> None:
    other = App(name="other", host="other.localhost")
    browser = Browser(make_local_access(App(name="app"), other, addresses=Addresses(8787, 443, DOMAIN)))
    assert browser.open(Cloudflared(browser, aud=other.tag).address).status_code == 400


def test_a_key_without_a_secret_is_rejected(browser: Browser) -> None:
    weak = Cloudflared(browser, token=urlsafe_b64encode(bytes(32)).decode())
    assert browser.log_in(url=weak.address).status_code == 400


def test_a_service_token_gets_no_transfer(browser: Browser) -> None:
    client_id, name = next(iter(browser.local_access.services.items()))
    secret = browser.local_access.service_secret(client_id, name)
    address = Cloudflared(browser).address
    response = browser.open(address, cf_access_client_id=client_id, cf_access_client_secret=secret)
    assert (response.status_code, "needs no login" in response.text) == (400, True)


def test_only_the_newest_transfers_are_stored(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_login, "MAX_TRANSFERS", 2)
    made = [Cloudflared(browser) for _ in range(3)]
    browser.log_in()
    for cloudflared in made:
        browser.open(cloudflared.address)
    assert [cloudflared.fetch().status_code for cloudflared in made] == [404, 200, 200]


def test_the_store_has_a_host_of_its_own() -> None:
    assert Addresses(1).transfer_host is None
    assert Addresses(1, 2, "acme.fed.cloudflareaccess.com").transfer_host == "login.fed.cloudflareaccess.org"


def test_a_request_for_an_ssh_certificate_gets_an_error_that_cloudflared_prints(browser: Browser) -> None:
    response = browser.open(f"https://{DOMAIN}/cdn-cgi/access/cert_sign", method="POST")
    assert (response.status_code, response.json()["status"]) == (501, 501)
    assert "signs no SSH certificates" in response.json()["message"]
