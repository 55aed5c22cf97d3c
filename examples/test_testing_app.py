from collections.abc import Callable

from fastapi.testclient import TestClient
from testing_app import access, app

from fastapi_cloudflare_access import ServiceClaims, UserClaims
from fastapi_cloudflare_access.testing import FakeTeam

AsUser = Callable[..., UserClaims]
AsService = Callable[..., ServiceClaims]

client = TestClient(app)


def test_a_user_sees_their_address(access_as_user: AsUser) -> None:
    user = access_as_user(access, "ada@example.com")
    assert client.get("/me").json() == {"email": user.email}


def test_the_admin_page_is_for_admins(access_as_user: AsUser) -> None:
    access_as_user(access, "ada@example.com", groups=["admins"])
    assert client.get("/admin").status_code == 200
    access_as_user(access, "bob@example.com", groups=["staff"])
    assert client.get("/admin").status_code == 403


def test_a_text_is_no_list_of_groups(access_as_user: AsUser) -> None:
    access_as_user(access, "eve@example.com", custom={"groups": "not-admins"})
    assert client.get("/admin").status_code == 403


def test_services_deploy(access_as_service: AsService) -> None:
    service = access_as_service(access, "deploy-bot")
    assert client.post("/deploy").json() == service.client_id


def test_a_token_is_accepted_until_it_expires(access_team: FakeTeam) -> None:
    with access_team.patch(access), TestClient(app) as served:
        user = access_team.user("ada@example.com", expires_in=3600)
        headers = access_team.headers(user)
        assert served.get("/me", headers=headers).status_code == 200
        expired = access_team.headers(access_team.forge("expired"))
        assert served.get("/me", headers=expired).status_code == 401
