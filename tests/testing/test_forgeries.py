"""A real app rejects every forgery for its reason, and the kit can cause every reason code."""

import logging
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from typing import Annotated

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fastapi_cloudflare_access import Claims, CloudflareAccess, UserClaims, errors
from fastapi_cloudflare_access._keys.jwks import parse_jwks
from fastapi_cloudflare_access._verification.token import parse, verify
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam
from fastapi_cloudflare_access.testing.fetch import MemoryFetch

access = CloudflareAccess(team_domain="acme", audience="forgeries")
app = FastAPI()


@app.get("/")
async def caller(_: Annotated[Claims, Depends(access)]) -> None: ...


@app.get("/user")
async def user(_: Annotated[UserClaims, Depends(access.user)]) -> None: ...


@app.get("/forbidden", dependencies=[Depends(access.require(lambda _: False))])
async def forbidden() -> None: ...


@app.get("/identity", dependencies=[Depends(access.identity)])
async def identity() -> None: ...


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam("acme")


@pytest.fixture
def certs(team: FakeTeam) -> Iterator[MemoryFetch]:
    with team.patch(access) as certs:
        yield certs


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_rejected_for_its_reason(
    team: FakeTeam, certs: MemoryFetch, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(app) as client, caplog.at_level(logging.INFO, "fastapi_cloudflare_access"):
        answer = client.get("/", headers=team.headers(team.forge(name)))
    reasons = [vars(record)["reason"] for record in caplog.records if "reason" in vars(record)]
    assert (answer.status_code, reasons) == (401, [FORGERIES[name].reason])


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_describes_its_defect(name: str) -> None:
    forgery = FORGERIES[name]
    assert (forgery.name, len(forgery.about) > 5) == (name, True)


@hypothesis_settings(deadline=None, max_examples=20)
@given(
    name=st.sampled_from(["acme", "evil", "good", "stranger", "not-a-team", "http://127.0.0.1:8787"]),
    email=st.sampled_from(["", "mallory@example.com", "mallory+mallory@example.com"]) | st.emails() | st.text(),
    tags=st.lists(st.sampled_from(["f" * 64, "f" * 65, "t", "t0", "t00", "0", "aud"]), min_size=1),
)
def test_a_forgery_is_rejected_for_any_email_team_and_audience(name: str, email: str, tags: list[str]) -> None:
    team = FakeTeam(name, audience=tags)
    is_accepted = acceptance_check(team)
    assert is_accepted(team.user_token(email))
    assert [forgery for forgery in FORGERIES if is_accepted(team.forge(forgery, email))] == []


def acceptance_check(team: FakeTeam) -> Callable[[str], bool]:
    settings = Settings.load(team_domain=team.team_domain, audience=list(team.audiences))
    keys = parse_jwks(team.certs_body()).keys

    def is_accepted(token: str) -> bool:
        try:
            parsed = parse(token.encode())
            key = keys.get(parsed.kid)
            if key is None:
                return False
            UserClaims.model_validate(verify(parsed, key=key, settings=settings, now=team.clock.now()))
        except (errors.CredentialError, ValidationError):
            return False
        return True

    return is_accepted


def test_es256_carries_a_signature_of_that_algorithm(team: FakeTeam) -> None:
    signed, _, signature = team.forge("es256").rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    key.verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))
    assert len(raw) == 64


def test_the_base_of_the_forgeries_is_accepted(team: FakeTeam, certs: MemoryFetch) -> None:
    with TestClient(app) as client:
        assert client.get("/", headers=team.headers(team.user_token("ada@example.com"))).status_code == 200


def test_the_forgery_with_the_previous_key_is_invalid_without_one(team: FakeTeam, certs: MemoryFetch) -> None:
    team.withdraw()
    with TestClient(app) as client:
        assert client.get("/", headers=team.headers(team.forge("previous_key"))).status_code == 401


def no_token(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    client.get("/")


def two_headers(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    [header] = team.headers(team.user("ada@example.com")).items()
    client.get("/", headers=[header, header])


def wrong_kind(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    client.get("/user", headers=team.headers(team.service("deploy-bot")))


def refused_by_a_policy(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    client.get("/forbidden", headers=team.headers(team.user("ada@example.com")))


def keys_too_old(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    certs.fail_with(503)
    team.clock.advance(86_401)
    client.get("/", headers=team.headers(team.user("ada@example.com")))


def key_that_cannot_be_looked_for(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    certs.fail_with(503)
    client.get("/", headers=team.headers(team.forge("unknown_kid")))


def session_that_ended(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    team.end_sessions("ada@example.com")
    client.get("/identity", headers=team.headers(team.user("ada@example.com")))


def identity_that_cannot_be_asked(client: TestClient, team: FakeTeam, certs: MemoryFetch) -> None:
    certs.identity.fail_with(503)
    client.get("/identity", headers=team.headers(team.user("ada@example.com")))


NOT_BY_A_TOKEN: dict[str, Callable[[TestClient, FakeTeam, MemoryFetch], None]] = {
    "missing_token": no_token,
    "ambiguous_token": two_headers,
    "wrong_caller": wrong_kind,
    "forbidden": refused_by_a_policy,
    "keys_unavailable": keys_too_old,
    "key_unconfirmed": key_that_cannot_be_looked_for,
    "token_revoked": session_that_ended,
    "identity_unavailable": identity_that_cannot_be_asked,
}


@pytest.mark.parametrize("reason", NOT_BY_A_TOKEN)
def test_reasons_that_no_token_causes_are_caused_by_the_rest_of_the_kit(
    team: FakeTeam, certs: MemoryFetch, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(app) as client, caplog.at_level(logging.INFO, "fastapi_cloudflare_access"):
        NOT_BY_A_TOKEN[reason](client, team, certs)
    assert reason in [vars(record).get("reason") for record in caplog.records]


def test_every_reason_code_of_the_package_is_caused_by_the_kit() -> None:
    leaves = {
        kind.reason
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AccessError) and not kind.__subclasses__()
    }
    caused = {forgery.reason for forgery in FORGERIES.values()} | set(NOT_BY_A_TOKEN)
    others = {"configuration_error", "cross_origin", "revocations_unavailable"}
    assert caused == leaves - others, "no token causes these"
