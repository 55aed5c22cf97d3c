"""The addresses, apps, sessions and pending logins of a local Access."""

import pytest
from support.local_rig import make_local_access

from fastapi_cloudflare_access.local.config import App, ServiceToken
from fastapi_cloudflare_access.local.local_access import MAX_NONCES, Addresses, PendingLogin, ShiftedClock
from fastapi_cloudflare_access.testing import FakeClock


def test_the_team_is_on_another_host_than_the_apps() -> None:
    addresses = Addresses(8787)
    assert addresses.issuer == "http://127.0.0.1:8787"
    assert addresses.origins("localhost") == {"localhost:8787": "http://localhost:8787"}
    assert addresses.origin("a.localhost") == "http://a.localhost:8787"


def test_with_tls_every_app_has_two_origins_and_the_team_may_have_a_real_name() -> None:
    addresses = Addresses(80, 443, "acme.cloudflareaccess.com")
    assert addresses.issuer == "https://acme.cloudflareaccess.com"
    assert addresses.team_hosts == {
        "127.0.0.1",
        "acme.cloudflareaccess.com",
        "acme-renamed.cloudflareaccess.com",
    }
    assert set(addresses.origins("app.test").values()) <= {"http://app.test", "https://app.test"}
    assert Addresses(8787, 8443).origins("localhost") == {
        "localhost:8787": "http://localhost:8787",
        "localhost:8443": "https://localhost:8443",
    }
    assert Addresses(8787, 8443).origin("localhost") == "https://localhost:8443"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/", "root"), ("/api", "api"), ("/api/x", "api"), ("/apix", "root"), ("/api/v2/y", "v2"), ("/api/v2", "v2")],
)
def test_the_most_specific_path_decides(path: str, name: str) -> None:
    local_access = make_local_access(
        App(name="root"), App(name="api", paths=("/api",)), App(name="v2", paths=("/other", "/api/v2/"))
    )
    app = local_access.app_at("localhost", path)
    assert app is not None
    assert app.name == name
    assert local_access.app_at("shop.localhost", path) is None


def test_a_service_token_needs_both_credentials() -> None:
    token = ServiceToken(name="a", client_secret="given")
    local_access = make_local_access(service_tokens=(token, ServiceToken(name="b", client_id="0" * 32 + ".access")))
    first, second = local_access.services
    assert second == "0" * 32 + ".access"
    assert local_access.authenticate_service(first, "given") == "a"
    assert local_access.authenticate_service(second, local_access.service_secret(second, "b")) == "b"
    for client_id, secret in ((first, ""), (first, "Given"), (second, "given"), ("", ""), (first, "ü")):
        assert local_access.authenticate_service(client_id, secret) is None


def test_a_session_belongs_to_its_user_until_it_ends() -> None:
    local_access = make_local_access()
    session = local_access.log_in("ada@example.com", ip="")
    claims = {"identity_nonce": session.id, "email": "ada@example.com"}
    assert local_access.session_of(claims) is session
    assert local_access.session_of({**claims, "email": "bob@example.com"}) is None
    assert local_access.session_of({"email": "ada@example.com"}) is None
    assert local_access.session_of(None) is None
    local_access.log_in("bob@example.com", ip="")
    assert local_access.end_sessions("ada@example.com", "revoked") == 1
    assert local_access.end_sessions("ada@example.com", "revoked") == 0
    assert local_access.session_of(claims) is None


def test_pending_logins_are_limited_and_expire() -> None:
    clock = FakeClock()
    local_access = make_local_access(clock=clock)
    session, app = local_access.log_in("ada@example.com", ip=""), local_access.config.apps[0]

    def add_login(lifetime: float) -> str:
        return local_access.add_pending_login(
            PendingLogin(session, app, "localhost", "", "/", clock.monotonic() + lifetime)
        )

    first = add_login(10)
    clock.advance(10)
    second = add_login(100)
    assert set(local_access.pending_logins) == {second}
    for _ in range(MAX_NONCES):
        add_login(100)
    assert len(local_access.pending_logins) == MAX_NONCES
    assert first not in local_access.pending_logins
    assert second not in local_access.pending_logins


@pytest.mark.anyio
async def test_a_shift_of_the_clock_does_not_change_monotonic_time() -> None:
    base = FakeClock()
    clock = ShiftedClock(base)
    clock.shift = -50.0
    assert clock.now() == base.now() - 50
    assert clock.monotonic() == base.monotonic()
    await base.run_until(clock.sleep(5))
    assert ShiftedClock().now() > base.now()
