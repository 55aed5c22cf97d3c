"""Managed OAuth: metadata, registration, authorization with PKCE, tokens, and the swap for an assertion."""

from base64 import urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from support.local_rig import APP, TEAM, Browser, make_local_access, make_state

from fastapi_cloudflare_access.local import oauth_grants
from fastapi_cloudflare_access.local.config import App, Policy
from fastapi_cloudflare_access.local.oauth_grants import is_allowed_redirect, matches_redirect
from fastapi_cloudflare_access.local.state import State
from fastapi_cloudflare_access.testing import FakeClock

OAUTH = TEAM + "/cdn-cgi/access/oauth/"
CALLBACK = "http://127.0.0.1:5000/callback"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
MANAGED = App(name="app", managed_oauth=True, oauth_redirects=("https://client.example.com/callback",))


class Client:
    """A client of managed OAuth, and the browser that it opens."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.id = self.register([CALLBACK]).json()["client_id"]

    def register(self, redirect_uris: Any) -> Any:
        return self.browser.client.post(OAUTH + "registration", json={"redirect_uris": redirect_uris})

    def address(self, **changed: str | None) -> str:
        parameters = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": CALLBACK,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": APP + "/",
            "state": "s",
            **changed,
        }
        return f"{OAUTH}authorization?{urlencode({name: value for name, value in parameters.items() if value})}"

    def log_in(self, email: str = "ada@example.com") -> Any:
        """Return the response to the authorization after the login."""
        page = self.browser.open(self.address())
        if "location" in page.headers:  # logged in already
            return page
        form = self.browser.submit(page, email=email)
        return self.browser.open(form.headers["location"])

    def code(self) -> str:
        return parameters_of(self.log_in())["code"]

    def ask(self, **form: str) -> Any:
        return self.browser.client.post(OAUTH + "token", data={"client_id": self.id, **form})

    def redeem(self, code: str, **changed: str) -> Any:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return self.ask(**form | changed)

    def tokens(self) -> dict[str, Any]:
        tokens: dict[str, Any] = self.redeem(self.code()).json()
        return tokens


def parameters_of(response: Any) -> dict[str, str]:
    query = parse_qs(urlsplit(response.headers["location"]).query)
    return {name: values[0] for name, values in query.items()}


def get(browser: Browser, token: str, path: str = "/") -> Any:
    browser.jar.clear()
    return browser.open(APP + path, authorization=f"Bearer {token}")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(clock: FakeClock) -> Client:
    denied = Policy(decision="deny", emails=("bob@example.com",))
    app = MANAGED.model_copy(update={"policies": (denied, Policy(everyone=True))})
    plain = App(name="plain", host="plain.localhost")
    return Client(Browser(make_local_access(app, plain, clock=clock)))


def test_a_program_is_told_where_to_log_in_and_a_browser_is_redirected(client: Client) -> None:
    resource = f"{APP}/.well-known/cloudflare-access-protected-resource/mcp"
    refused = client.browser.open(APP + "/mcp", accept="application/json, text/event-stream")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == f'Bearer resource_metadata="{resource}"'
    assert client.browser.open(APP + "/mcp", accept="text/html").status_code == 302
    assert client.browser.open("http://plain.localhost:8787/mcp").status_code == 302
    described = client.browser.open(resource).json()
    assert (described["resource"], described["authorization_servers"]) == (APP + "/mcp", [TEAM])


def test_the_metadata_is_on_the_team_domain_and_on_the_app(client: Client) -> None:
    path = "/.well-known/oauth-authorization-server"
    described = client.browser.open(TEAM + path).json()
    assert described["issuer"] == TEAM
    assert described["code_challenge_methods_supported"] == ["S256"]
    assert described["revocation_endpoint"] == OAUTH + "revoke"
    assert client.browser.open(APP + path).json() == described
    assert client.browser.open("http://plain.localhost:8787" + path).status_code == 302


def test_an_access_token_is_swapped_for_an_assertion_that_expires_with_it(client: Client, clock: FakeClock) -> None:
    answer = client.log_in()
    assert parameters_of(answer).keys() == {"code", "state", "iss"}
    tokens = client.redeem(parameters_of(answer)["code"]).json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
    assert tokens["access_token"].startswith("oauth:")
    clock.advance(100)
    assert get(client.browser, tokens["access_token"]).text == "hello"
    seen = client.browser.app.headers()
    claims = client.browser.local_access.team.verified_claims(seen["cf-access-jwt-assertion"], "app") or {}
    assert (claims["email"], claims["exp"] - claims["iat"]) == ("ada@example.com", 800)
    assert seen["authorization"] == f"Bearer {tokens['access_token']}"
    clock.advance(800)
    refused = get(client.browser, tokens["access_token"])
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith('Bearer error="invalid_token", resource_metadata=')


def test_a_refresh_token_works_once_and_while_the_session_lasts(client: Client) -> None:
    first = client.tokens()
    second = client.ask(grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert get(client.browser, second.json()["access_token"]).text == "hello"
    again = client.ask(grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    client.browser.local_access.end_sessions("ada@example.com", "revoked")
    refused = client.ask(grant_type="refresh_token", refresh_token=second.json()["refresh_token"])
    assert refused.json()["error"] == "invalid_grant"
    assert get(client.browser, second.json()["access_token"]).status_code == 401


def test_a_code_works_once_for_its_client_and_its_verifier(client: Client, clock: FakeClock) -> None:
    code = client.code()
    other = Client(client.browser)
    assert other.redeem(code).json()["error"] == "invalid_grant"
    for changed in ({"code_verifier": "w" * 43}, {"redirect_uri": CALLBACK + "x"}):
        assert client.redeem(client.code(), **changed).json()["error"] == "invalid_grant"
    code = client.code()
    assert "access_token" in client.redeem(code).json()
    assert client.redeem(code).json()["error"] == "invalid_grant"
    code = client.code()
    clock.advance(60)
    assert client.redeem(code).json()["error"] == "invalid_grant"


def test_a_token_is_only_for_its_app_and_for_users_that_a_policy_admits(client: Client) -> None:
    token = client.tokens()["access_token"]
    plain = client.browser.open("http://plain.localhost:8787/", authorization=f"Bearer {token}")
    assert plain.status_code == 302
    assert get(client.browser, "oauth:unknown").status_code == 401
    client.browser.jar.clear()
    assert client.log_in("bob@example.com").status_code == 403
    grants = client.browser.local_access.state.oauth.access
    session = client.browser.local_access.log_in("bob@example.com", ip="")
    grants.update({digest: replace(grant, session=session.id) for digest, grant in grants.items()})
    assert get(client.browser, token).status_code == 403


def test_a_token_of_one_app_is_refused_by_another_with_managed_oauth() -> None:
    other = App(name="other", host="other.localhost", managed_oauth=True)
    client = Client(Browser(make_local_access(MANAGED, other)))
    token = client.tokens()["access_token"]
    assert client.browser.open("http://other.localhost:8787/", authorization=f"Bearer {token}").status_code == 401
    assert get(client.browser, token).text == "hello"


def test_a_revoked_token_is_refused(client: Client) -> None:
    tokens = client.tokens()
    for token in tokens["access_token"], tokens["refresh_token"], "unknown":
        assert client.browser.client.post(OAUTH + "revoke", data={"token": token}).status_code == 200
    assert get(client.browser, tokens["access_token"]).status_code == 401
    assert client.ask(grant_type="refresh_token", refresh_token=tokens["refresh_token"]).status_code == 400


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "é" * 43}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "http://plain.localhost:8787/"}, "invalid_target"),
        ({"resource": "http://localhost:9999/"}, "invalid_target"),
        ({"resource": "http://[::1"}, "invalid_target"),
        ({"resource": "nothing"}, "invalid_target"),
    ],
)
def test_an_invalid_authorization_goes_back_to_the_client(client: Client, changed: Any, error: str) -> None:
    response = client.browser.open(client.address(**changed))
    assert response.headers["location"].startswith(CALLBACK + "?error=")
    assert (parameters_of(response)["error"], parameters_of(response)["state"]) == (error, "s")
    assert "state" not in parameters_of(client.browser.open(client.address(**{**changed, "state": None})))


@pytest.mark.parametrize("changed", [{"client_id": "x"}, {"redirect_uri": "http://127.0.0.1:5000/other"}])
def test_an_unknown_client_or_redirect_gets_a_page_and_no_redirect(client: Client, changed: Any) -> None:
    assert client.browser.open(client.address(**changed)).status_code == 400


def test_a_redirect_uri_may_have_a_query(client: Client) -> None:
    registered = client.register([CALLBACK + "?a=1"]).json()["client_id"]
    client.id = registered
    response = client.browser.open(client.address(redirect_uri=CALLBACK + "?a=1", resource=None))
    assert response.headers["location"].startswith(CALLBACK + "?a=1&error=invalid_target")


@pytest.mark.parametrize(
    ("uris", "error"),
    [
        (None, "invalid_client_metadata"),
        ([], "invalid_client_metadata"),
        ([CALLBACK] * 11, "invalid_client_metadata"),
        (["https://evil.example.com/"], "invalid_redirect_uri"),
        ([5], "invalid_redirect_uri"),
    ],
)
def test_an_invalid_registration_is_rejected(client: Client, uris: Any, error: str) -> None:
    response = client.register(uris)
    assert (response.status_code, response.json()["error"]) == (400, error)
    assert client.browser.client.post(OAUTH + "registration", content=b"[]").status_code == 400


def test_other_requests_are_rejected(client: Client) -> None:
    assert client.ask(grant_type="password").json()["error"] == "unsupported_grant_type"
    client.id = "x"
    assert client.redeem("x").json()["error"] == "invalid_client"
    assert client.browser.open(OAUTH + "token").status_code == 405
    assert client.browser.open(OAUTH + "other").status_code == 404


@pytest.mark.parametrize(
    ("uri", "is_allowed"),
    [
        ("http://localhost/cb", True),
        ("http://[::1]:1/cb", True),
        ("https://client.example.com/callback", True),
        ("https://client.example.com/callback/x", False),
        ("http://user@localhost/cb", False),
        ("http://localhost/cb#x", False),
        ("http://localhost.evil.test/cb", False),
        ("http://localhost:99999/cb", False),
        ("http://localhost/\u00fc", False),
        ("http://localhost/a\r\nb", False),
        ("http://[::1", False),
        ("http://localhost/" + "x" * 2000, False),
        (None, False),
    ],
)
def test_only_loopback_and_named_redirects_may_be_registered(uri: object, is_allowed: bool) -> None:  # noqa: FBT001
    assert is_allowed_redirect(uri, (MANAGED,)) is is_allowed


@pytest.mark.parametrize(
    ("uri", "is_match"),
    [
        ("http://127.0.0.1:5001/callback", True),
        ("http://127.0.0.1:5001/other", False),
        ("http://localhost:5000/callback", False),
        ("https://client.example.com:1/callback", False),
        ("http://[::1", False),
    ],
)
def test_a_loopback_redirect_may_have_any_port(uri: str, is_match: bool) -> None:  # noqa: FBT001
    assert matches_redirect(uri, [CALLBACK, "https://client.example.com/callback"]) is is_match


def test_clients_and_tokens_survive_a_restart_without_being_readable(tmp_path: Any) -> None:
    state = State(tmp_path)
    state.keys = make_state().keys
    client = Client(Browser(make_local_access(MANAGED, state=state)))
    tokens = client.tokens()
    content = (tmp_path / "state.json").read_text()
    assert client.id in content
    assert tokens["access_token"].removeprefix("oauth:") not in content
    again = Browser(make_local_access(MANAGED, state=State(tmp_path)))
    assert get(again, tokens["access_token"]).text == "hello"


def test_the_number_of_clients_is_limited(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth_grants, "MAX_ENTRIES", 2)
    made = [Client(client.browser) for _ in range(3)]
    assert [bool(made[n].browser.local_access.state.oauth.clients.get(made[n].id)) for n in range(3)] == [
        False,
        True,
        True,
    ]


def test_reset_ends_all_tokens_for_ever(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.keys = make_state().keys
    client = Client(Browser(make_local_access(MANAGED, state=state)))
    tokens = client.tokens()
    client.browser.client.post(TEAM + "/control/api/reset", json={"sessions": "keep"})
    assert get(client.browser, tokens["access_token"]).status_code == 401
    assert State(tmp_path).oauth.access == {}
    assert client.tokens()["access_token"] != tokens["access_token"]
