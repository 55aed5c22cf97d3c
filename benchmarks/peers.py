"""How others verify the same tokens: as their documentation shows it, with all prepared that they let prepare."""

import json
import warnings
from collections.abc import Callable
from unittest.mock import patch

import jwt
from jose import jwt as jose_jwt
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt
from material import TEAM

ISSUER, AUDIENCE = TEAM.issuer, TEAM.audience
Verify = Callable[[str], object]


def pyjwt() -> Verify:
    """PyJWT with a key made before."""
    key = jwt.PyJWK(TEAM.current.jwk(), "RS256").key
    return lambda token: jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)


def pyjwt_client() -> Verify:
    """PyJWT with its `PyJWKClient`, as Cloudflare's page shows it; the certs document is in its cache."""
    client = jwt.PyJWKClient(f"{ISSUER}/cdn-cgi/access/certs", lifespan=86_400)
    document = json.loads(TEAM.certs_body())
    with patch.object(client, "fetch_data", lambda: client.jwk_set_cache.put(document) or document):
        client.get_jwk_set()

    def verify(token: str) -> object:
        key = client.get_signing_key_from_jwt(token).key
        return jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)

    return verify


def python_jose() -> Verify:
    """python-jose with the whole key set, as its users write it."""
    keys = TEAM.certs()
    return lambda token: jose_jwt.decode(token, keys, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)


def joserfc() -> Verify:
    """The library joserfc, with a key set and its claims registry."""
    keys = joserfc_jwk.KeySet.import_key_set({"keys": [key.jwk() for key in TEAM.keys]})
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": AUDIENCE}
    )

    def verify(token: str) -> object:
        decoded = joserfc_jwt.decode(token, keys, algorithms=["RS256"])
        registry.validate(decoded.claims)
        return decoded.claims

    return verify


def authlib() -> Verify:
    """Authlib with a key set and its claims options."""
    with warnings.catch_warnings(record=True):  # it is to give way to joserfc, and says so
        from authlib.jose import JsonWebKey, JsonWebToken  # noqa: PLC0415
    keys = JsonWebKey.import_key_set({"keys": [key.jwk() for key in TEAM.keys]})
    tool = JsonWebToken(["RS256"])
    options = {"iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": AUDIENCE}}

    def verify(token: str) -> object:
        claims = tool.decode(token, keys, claims_options=options)
        claims.validate()
        return claims

    return verify


PEERS: dict[str, Callable[[], Verify]] = {
    "PyJWT, prebuilt key": pyjwt,
    "PyJWT, PyJWKClient": pyjwt_client,
    "python-jose jwt.decode": python_jose,
    "joserfc": joserfc,
    "Authlib": authlib,
}
