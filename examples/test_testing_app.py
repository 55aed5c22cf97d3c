from collections.abc import Callable

from fastapi.testclient import TestClient
from testing_app import access, app

from fastapi_cloudflare_access import ServiceClaims, UserClaims
from fastapi_cloudflare_access.testing import LocalTeam

client = TestClient(app)


def test_a_user_sees_who_they_are(access_as_user: Callable[..., UserClaims]) -> None:
    user = access_as_user(app, access, "ada@example.com")
    assert client.get("/me").json() == {"email": user.email}


def test_the_admin_page_is_for_admins(access_as_user: Callable[..., UserClaims]) -> None:
    access_as_user(app, access, "bob@example.com", groups=["staff"])
    assert client.get("/admin").status_code == 403


def test_services_deploy(access_as_service: Callable[..., ServiceClaims]) -> None:
    service = access_as_service(app, access, "deploy-bot")
    assert client.post("/deploy").json() == service.common_name


def test_a_token_gets_in_until_it_expires(access_team: LocalTeam) -> None:
    with access_team.serve(access), TestClient(app) as served:
        headers = access_team.headers(access_team.user("ada@example.com", expires_in=3600))
        assert served.get("/me", headers=headers).status_code == 200
        expired = access_team.headers(access_team.forge("expired"))
        assert served.get("/me", headers=expired).status_code == 401
