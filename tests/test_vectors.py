"""The tokens that Cloudflare documents, member by member, signed by keys of our own: which callers they identify."""

import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access._keys.jwks import parse_jwks
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam, MemoryFetch

VECTORS = Path(__file__).parent / "vectors"
TOKENS: dict[str, Any] = json.loads((VECTORS / "tokens.json").read_text())
CERTS: dict[str, Any] = json.loads((VECTORS / "certs.json").read_text())["document"]
TEAM, AUDIENCE = "https://yourteam.cloudflareaccess.com", TOKENS["user"]["claims"]["aud"][0]

pytestmark = pytest.mark.anyio


async def verified(kind: str, *, audience: str = AUDIENCE, **changes: Any) -> UserClaims | ServiceClaims | str:
    """What becomes of this vector, a second after it was issued: the claims, or the reason code."""
    vector = TOKENS[kind]
    team = FakeTeam(TEAM, audience=audience, clock=FakeClock(now=vector["claims"]["iat"] + 1))
    access = CloudflareAccess(team_domain=TEAM, audience=audience, fetch=MemoryFetch(team), clock=team.clock)
    token = team.sign({**vector["claims"], **changes}, header={**vector["header"], "kid": team.current.kid})
    try:
        async with access:
            return await access._authenticator.verifier.verify(token.encode())
    except AccessError as refused:
        return refused.reason


async def test_the_documented_user_token_is_a_user() -> None:
    user, said = await verified("user"), TOKENS["user"]["claims"]
    assert isinstance(user, UserClaims)
    assert user.model_dump(mode="json", exclude_unset=True) | {"identity_nonce": user.identity_nonce} == said
    assert (user.aud, user.sub, user.email) == ((AUDIENCE,), said["sub"], "user@example.com")
    assert (user.exp - user.iat, user.nbf, user.country) == (60, user.iat, "US")
    assert (user.identity_nonce, user.policy_id) == (said["identity_nonce"], said["policy_id"])
    assert user.model_extra == {"h_INTERNAL_DO_NOT_USE": "app.example.com"}


async def test_the_service_token_as_measured_is_a_service() -> None:
    service, said = await verified("service"), TOKENS["service"]["claims"]
    assert isinstance(service, ServiceClaims)
    assert service.model_dump(mode="json", exclude_unset=True) == {**said, "aud": [AUDIENCE]}
    assert (service.aud, service.sub, service.common_name) == ((AUDIENCE,), "", said["common_name"])
    assert (service.exp - service.iat, service.nbf) == (3601, None)


@pytest.mark.parametrize("kind", ["org", "meta", "match"])
async def test_other_tokens_of_the_team_admit_no_caller(kind: str) -> None:
    assert await verified(kind) == "wrong_type"


@pytest.mark.parametrize(("kind", "reason"), [("org", "user"), ("meta", "invalid_claims"), ("match", "invalid_claims")])
async def test_only_the_type_keeps_a_global_session_out(kind: str, reason: str) -> None:
    """Said to be `app`, with the audience that it has: a session would pass, the others lack issuer and caller."""
    audience = TOKENS[kind]["claims"]["aud"]
    tag = audience if isinstance(audience, str) else audience[0]
    outcome = await verified(kind, audience=tag, type="app")
    assert (outcome if isinstance(outcome, str) else "user") == reason


def test_the_documented_certs_document_gives_both_keys_by_their_ids() -> None:
    """Its shape, with the moduli of keys of our own: the documentation shortens them."""
    published = FakeTeam("acme").certs()["keys"]
    keys = [{**entry, "n": own["n"]} for entry, own in zip(CERTS["keys"], published, strict=True)]
    found = parse_jwks(json.dumps({**CERTS, "keys": keys}).encode())
    assert list(found.keys) == [entry["kid"] for entry in CERTS["keys"]]
    assert found.skipped == ()
    assert urlsafe_b64decode(CERTS["keys"][0]["e"]) == b"\x01\x00\x01"
