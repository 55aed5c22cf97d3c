"""The issuer signs tokens of the same form as Cloudflare Access (tests/vectors) with the keys that it publishes."""

import json
import re
from base64 import urlsafe_b64decode
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from fastapi_cloudflare_access._keys.jwks import parse_jwks
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing import FakeClock, FakeTeam
from fastapi_cloudflare_access.testing._issuer import KEY_LIFETIME, Issuer, SigningKey
from fastapi_cloudflare_access.testing.clock import EPOCH
from fastapi_cloudflare_access.testing.team import shared_key

VECTORS = Path(__file__).parents[1] / "vectors"
TOKENS = json.loads((VECTORS / "tokens.json").read_text())
CERTS = json.loads((VECTORS / "certs.json").read_text())["document"]
FORMS = {
    "64 hex": r"[0-9a-f]{64}",
    "32 hex": r"[0-9a-f]{32}",
    "client id": r"[0-9a-f]{32}\.access",
    "uuid": r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}",
    "nonce": r"[0-9A-Za-z]{16}",
    "team domain": r"(https://)?[a-z]+\.cloudflareaccess\.com",
    "address": r"[a-z]+@example\.com",
    "path": r"/[a-z]*",
}


def form(value: Any) -> Any:
    """Return the form of a value: names, order and types of its members, and the form of ids."""
    match value:
        case dict():
            return [(name, form(member)) for name, member in value.items()]
        case list():
            return [form(member) for member in value]
        case str():
            return next((name for name, pattern in FORMS.items() if re.fullmatch(pattern, value)), value)
        case _:
            return value if isinstance(value, bool) else type(value)


def opened(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    header, payload, signature = (urlsafe_b64decode(part + "==") for part in token.split("."))
    return json.loads(header), json.loads(payload), signature


@pytest.fixture
def team() -> FakeTeam:
    return FakeTeam("acme")


def tokens(team: FakeTeam) -> dict[str, str]:
    return {
        "user": team.user_token("ada@example.com"),
        "service": team.service_token("deploy-bot"),
        "org": team.org_token("ada@example.com"),
        "meta": team.meta_token(redirect_url="/path"),
        "match": team.match_token(),
    }


@pytest.mark.parametrize("kind", TOKENS)
def test_each_kind_of_token_has_the_header_seen_on_the_wire(team: FakeTeam, kind: str) -> None:
    assert form(opened(tokens(team)[kind])[0]) == form(TOKENS[kind]["header"])


@pytest.mark.parametrize("kind", TOKENS)
def test_each_kind_of_token_has_the_claims_seen_on_the_wire(team: FakeTeam, kind: str) -> None:
    minted = opened(tokens(team)[kind])[1]
    assert form({**minted, **({"identity": {}} if "identity" in minted else {})}) == form(TOKENS[kind]["claims"])


def test_lifetimes_are_those_seen_on_the_wire(team: FakeTeam) -> None:
    claims = {kind: opened(token)[1] for kind, token in tokens(team).items()}
    lifetimes = {kind: said["exp"] - said["iat"] for kind, said in claims.items() if "exp" in said}
    assert lifetimes == {"user": 86_400, "service": 3601, "org": 86_400, "meta": 300}


def test_every_token_is_signed_by_the_published_key_of_its_kid(team: FakeTeam) -> None:
    keys = parse_jwks(team.certs_body()).keys
    for token in tokens(team).values():
        header, _, signature = opened(token)
        assert keys[header["kid"]].verifies(signature, token.rpartition(".")[0].encode())


def test_the_org_token_carries_the_identity_of_its_user(team: FakeTeam) -> None:
    claims = opened(team.org_token("ada@example.com"))[1]
    assert claims["identity"]["user_uuid"] == claims["sub"] == team.user_id("ada@example.com")
    assert claims["aud"] != [team.audience]


def test_groups_go_into_custom_beside_other_custom_claims(team: FakeTeam) -> None:
    claims = opened(team.user_token("ada@example.com", groups=["admins"], custom={"level": 5}))[1]
    assert claims["custom"] == {"level": 5, "groups": ["admins"]}


def test_options_set_the_other_claims(team: FakeTeam) -> None:
    claims = team.user_claims(
        "ada@example.com", country="NL", expires_in=60, hostname="wiki.example.com", claims={"device_id": "d"}
    )
    names = ("country", "h_INTERNAL_DO_NOT_USE", "device_id")
    assert [claims[name] for name in names] == ["NL", "wiki.example.com", "d"]
    assert claims["exp"] - claims["iat"] == 60
    service = team.service_claims("deploy-bot", expires_in=60, hostname="wiki.example.com", claims={"nbf": 1})
    assert (service["exp"] - service["iat"], service["h_INTERNAL_DO_NOT_USE"], service["nbf"]) == (
        60,
        "wiki.example.com",
        1,
    )


def test_a_client_id_is_its_own_common_name(team: FakeTeam) -> None:
    client_id = "e367826f93b8d71185e03fe518aff3b4.access"
    assert opened(team.service_token(client_id))[1]["common_name"] == client_id == team.client_id(client_id)


def test_one_of_several_audiences_can_be_chosen() -> None:
    team = FakeTeam(audience=["one", "two"])
    assert opened(team.user_token("ada@example.com"))[1]["aud"] == ["one"]
    assert opened(team.user_token("ada@example.com", audience="two"))[1]["aud"] == ["two"]
    assert opened(team.service_token("deploy-bot", audience="two"))[1]["aud"] == "two"
    assert opened(team.meta_token(audience="two"))[1]["aud"] == "two"
    assert opened(team.match_token(audience="two"))[1]["aud"] == "two"


@pytest.mark.parametrize("audience", ["three", ""])
def test_an_unknown_audience_is_rejected_with_the_known_ones(audience: str) -> None:
    team = FakeTeam(audience=["one", "two"])
    with pytest.raises(ConfigurationError, match=r"it has one, two; forge\('wrong_audience'\)"):
        team.user_token("ada@example.com", audience=audience)
    with pytest.raises(ConfigurationError, match="one, two"):
        team.service_token("deploy-bot", audience=audience)


def test_the_same_user_at_the_same_time_gets_the_same_token_in_every_run(team: FakeTeam) -> None:
    assert team.user_token("ada@example.com") == FakeTeam("acme").user_token("ada@example.com")
    assert team.user_id("ada@example.com") == "4c9bc5d7-e0ff-5a0d-9f55-ea2a923dcfc0"
    assert team.client_id("deploy-bot") == "0fbd2caf2d7db8a73f28c540723d61f0.access"


def test_ids_differ_between_users_services_and_teams(team: FakeTeam) -> None:
    other = FakeTeam("other")
    ids = [team.user_id("ada@example.com"), team.user_id("bob@example.com"), other.user_id("ada@example.com")]
    ids += [team.client_id("deploy-bot"), team.client_id("backup-bot"), other.client_id("deploy-bot")]
    assert len(set(ids)) == len(ids)


def test_tokens_are_dated_by_the_clock() -> None:
    clock = FakeClock()
    team = FakeTeam(clock=clock)
    clock.advance(10.9)
    assert opened(team.user_token("ada@example.com"))[1]["iat"] == EPOCH + 10


def test_the_certs_document_has_the_documented_shape(team: FakeTeam) -> None:
    document = team.certs()
    for entry in document["keys"]:
        assert len(urlsafe_b64decode(entry["n"] + "==")) == 256
        entry["n"] = CERTS["keys"][0]["n"]
    for cert in [document["public_cert"], *document["public_certs"]]:
        cert["cert"] = CERTS["public_cert"]["cert"]
    for entry in CERTS["keys"]:
        entry["n"] = CERTS["keys"][0]["n"]
    assert form(document) == form(CERTS)


def test_the_current_key_comes_last_and_is_the_public_cert(team: FakeTeam) -> None:
    document = team.certs()
    assert team.previous is not None
    assert [key["kid"] for key in document["keys"]] == [team.previous.kid, team.current.kid]
    assert document["public_cert"] == document["public_certs"][1]
    assert document["public_cert"]["kid"] == team.current.kid


def test_certificates_are_real_and_of_the_key_of_their_kid(team: FakeTeam) -> None:
    for cert in team.certs()["public_certs"]:
        certificate = x509.load_pem_x509_certificate(cert["cert"].encode())
        certificate.verify_directly_issued_by(certificate)
        key = next(key for key in team.keys if key.kid == cert["kid"])
        assert certificate.public_key() == key.private.public_key()
        assert certificate.not_valid_before_utc.timestamp() == EPOCH
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == KEY_LIFETIME


def test_rotation_keeps_the_last_key_and_drops_the_one_before() -> None:
    team = FakeTeam("acme")
    before, last = team.previous, team.current
    team.rotate()
    assert team.previous is last
    assert team.current not in {before, last}
    assert [entry["kid"] for entry in team.certs()["keys"]] == [last.kid, team.current.kid]
    assert opened(team.user_token("ada@example.com"))[0]["kid"] == team.current.kid


def test_a_certificate_is_dated_when_its_key_was_made() -> None:
    team = FakeTeam("acme")
    team.clock.advance(100)
    team.rotate()
    dates = [
        x509.load_pem_x509_certificate(cert["cert"].encode()).not_valid_before_utc.timestamp()
        for cert in team.certs()["public_certs"]
    ]
    assert dates == [EPOCH, EPOCH + 100]


def test_withdrawing_leaves_the_current_key_alone() -> None:
    team = FakeTeam("acme")
    team.withdraw()
    assert [entry["kid"] for entry in team.certs()["keys"]] == [team.current.kid]
    assert team.certs()["public_certs"] == [team.certs()["public_cert"]]


def test_the_previous_key_can_still_sign() -> None:
    team = FakeTeam("acme")
    key = team.previous
    assert key is not None
    assert opened(team.user_token("ada@example.com", key=key))[0]["kid"] == key.kid
    assert opened(team.service_token("deploy-bot", key=key))[0]["kid"] == key.kid


def test_anything_can_be_signed(team: FakeTeam) -> None:
    token = team.sign(b"not json", header=b"{}")
    header, payload, signature = (urlsafe_b64decode(part + "==") for part in token.split("."))
    assert (header, payload) == (b"{}", b"not json")
    assert signature == team.current.sign(token.rpartition(".")[0].encode())


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"claims": {"x": object()}}, "claims cannot be encoded as JSON in UTF-8: Object of type object is not"),
        ({"custom": {"x": {1}}}, "custom cannot be encoded as JSON in UTF-8: Object of type set is not"),
        ({"custom": {"x": circular()}}, "custom cannot be encoded as JSON in UTF-8: Circular reference"),
        ({"custom": {(1, 2): "x"}}, "custom cannot be encoded as JSON in UTF-8: keys must be str"),
        ({"groups": [object()]}, "groups cannot be encoded as JSON in UTF-8: Object of type object is not"),
        ({"groups": ["\ud800"]}, "groups cannot be encoded as JSON in UTF-8: 'utf-8' codec can't encode"),
        ({"country": "\ud800"}, "country cannot be encoded as JSON in UTF-8: 'utf-8' codec can't encode"),
        ({"email": "\ud800"}, "email cannot be encoded as JSON in UTF-8: 'utf-8' codec can't encode"),
    ],
)
def test_an_option_that_is_not_json_is_rejected_by_its_name(
    team: FakeTeam, options: dict[str, Any], error: str
) -> None:
    given: dict[str, Any] = {"email": "ada@example.com", **options}
    for make in (team.user_token, team.user):
        with pytest.raises(ConfigurationError, match=f"^{error}"):
            make(**given)


def test_any_mapping_is_accepted_as_custom(team: FakeTeam) -> None:
    claims = opened(team.user_token("ada@example.com", custom=MappingProxyType({"level": 5})))[1]
    assert claims["custom"] == {"level": 5}


@pytest.mark.parametrize("payload", [{"x": object()}, {"x": "\ud800"}])
def test_content_that_is_not_json_is_not_signed(team: FakeTeam, payload: dict[str, Any]) -> None:
    for claims, header in ((payload, {}), ({}, payload)):
        with pytest.raises(ConfigurationError, match="the signed content cannot be encoded as JSON in UTF-8: "):
            team.sign(claims, header=header)


def test_signatures_are_rsassa_pkcs1_v1_5_with_sha256() -> None:
    key = shared_key("acme", 0)
    public = key.private.public_key()
    assert isinstance(public, RSAPublicKey)
    public.verify(key.sign(b"data"), b"data", PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidSignature):
        public.verify(key.sign(b"data"), b"other", PKCS1v15(), hashes.SHA256())


def test_keys_are_random_and_of_2048_bits_and_their_ids_follow_from_them() -> None:
    keys = [SigningKey.generate(), SigningKey.generate()]
    assert [key.private.key_size for key in keys] == [2048, 2048]
    assert keys[0].kid != keys[1].kid
    assert all(re.fullmatch("[0-9a-f]{64}", key.kid) for key in keys)


def test_an_issuer_generates_its_own_keys_by_default() -> None:
    issuer = Issuer("http://127.0.0.1:1", name="local", audiences=("a",), clock=FakeClock())
    assert len({key.kid for key in issuer.keys}) == 2
