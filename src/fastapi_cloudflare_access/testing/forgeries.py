"""Invalid tokens by name, at least one for each reason code that a token can cause."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fastapi_cloudflare_access.errors import (
    CredentialError,
    InvalidClaims,
    InvalidSignature,
    MalformedToken,
    TokenExpired,
    TokenNotYetValid,
    UnknownKey,
    UnsupportedAlgorithm,
    WrongAudience,
    WrongIssuer,
    WrongType,
)
from fastapi_cloudflare_access.testing import _forging as forge


@dataclass(frozen=True, slots=True)
class Forgery:
    """A kind of invalid token.

    Attributes:
        name: The name for `team.forge`.
        error: The error that an app raises.
        about: The defect in a few words.
        make: The function that makes the token.
    """

    name: str
    error: type[CredentialError]
    about: str
    make: forge.Make

    @property
    def reason(self) -> str:
        """The reason code that the app logs."""
        return self.error.reason


Rows = tuple[tuple[str, str, forge.Make], ...]

_SHAPE: Rows = (
    ("empty", "an empty text", lambda _: ""),
    ("bearer_prefix", "`Bearer ` before the token", forge.text("Bearer {}".format)),
    ("two_segments", "no signature", forge.text(lambda token: token.rpartition(".")[0])),
    ("five_segments", "the shape of an encrypted token", forge.text("{}.AA.AA".format)),
    ("alg_none", "`alg` none and an empty signature", forge.signature(forge.no_signature, alg="none")),
    ("padded", "`=` after the signature", forge.text("{}==".format)),
    ("not_base64url", "`+` in the signature", forge.text(lambda token: token[:-4] + "++++")),
    ("not_canonical", "the same signature, encoded with other trailing bits", forge.text(forge.other_trailing_bits)),
    ("oversized", "more than 16 KiB", forge.claims(custom={"note": "x" * 16_384})),
)
_HEADER: Rows = (
    ("header_oversized", "a header of more than 1 KiB", forge.header(note="x" * 1024)),
    ("header_not_json", "a header that is not JSON", forge.header_bytes(lambda _: b"not json")),
    ("header_twice", "`alg` twice", forge.header_bytes(lambda whole: whole[:-1] + b',"alg":"RS256"}')),
    ("header_deep", "deeply nested lists", forge.header(note=forge.nested(100))),
    ("crit", "a critical extension", forge.header(crit=["b64"], b64=False)),
    ("embedded_jwk", "an embedded key", forge.embedded_key),
    ("remote_jku", "a URL of a key set", forge.header(jku="https://evil.example/certs")),
    ("other_typ", "another kind of JWT", forge.header(typ="at+jwt")),
    ("no_kid", "no key id", forge.header_without("kid")),
    ("kid_list", "a list as key id", forge.header(kid=["a", "b"])),
)
_PAYLOAD: Rows = (
    ("payload_not_json", "a payload that is not JSON", forge.payload(lambda _: b"not json")),
    ("payload_list", "a list as payload", forge.payload(b"[%b]".__mod__)),
    ("payload_twice", "`email` twice", forge.extra_member(b'"email":"mallory@example.com"')),
    ("payload_deep", "deeply nested lists", forge.claims(note=forge.nested(100))),
    ("nan", "a claim that is NaN", forge.extra_member(b'"level":NaN')),
    ("infinite", "a claim of 1e400", forge.extra_member(b'"level":1e400')),
    ("lone_surrogate", "a claim that is not valid UTF-8", forge.extra_member(rb'"note":"\ud800"')),
)
_ALGORITHM: Rows = (
    ("alg_none_signed", "`alg` none with a valid signature", forge.header(alg="none")),
    ("alg_missing", "no `alg`", forge.header_without("alg")),
    ("alg_list", "a list as `alg`", forge.header(alg=["RS256"])),
    ("alg_lower_case", "`alg` rs256", forge.header(alg="rs256")),
    ("hs256_confusion", "HMAC with the public key as secret", forge.signature(forge.hmac_with_public_key, alg="HS256")),
    ("ps256", "RSA-PSS with the right key", forge.signature(forge.pss, alg="PS256")),
    ("rs512", "SHA-512 with the right key", forge.signature(forge.sha512, alg="RS512")),
    ("es256", "an elliptic-curve signature", forge.signature(forge.ecdsa, alg="ES256")),
)
_KEY: Rows = (("unknown_kid", "valid claims, signed by an unpublished key", forge.unpublished_key()),)
_SIGNATURE: Rows = (
    ("tampered_payload", "other claims", forge.other_segment(1, forge.claim("email", "mallory+{}".format))),
    ("tampered_header", "another header", forge.other_segment(0, forge.header(typ="JWT"))),
    ("tampered_signature", "the signature of another token", forge.other_segment(2, forge.claims(country="NL"))),
    ("wrong_key", "signed by an unpublished key", forge.under_published_kid(lambda base: base.unpublished_key)),
    ("previous_key", "signed by the previous key", forge.under_published_kid(lambda base: base.previous)),
    ("short_signature", "one octet too few", forge.signature(lambda key, data: key.sign(data)[:-1])),
    ("pss_as_rs256", "RSA-PSS under `alg` RS256", forge.signature(forge.pss)),
    ("sha512_as_rs256", "SHA-512 under `alg` RS256", forge.signature(forge.sha512)),
)
_CLAIMS: Rows = (
    ("no_type", "no `type`", forge.without("type")),
    ("no_iss", "no `iss`", forge.without("iss")),
    ("no_aud", "no `aud`", forge.without("aud")),
    ("no_exp", "no `exp`", forge.without("exp")),
    ("no_iat", "no `iat`", forge.without("iat")),
    ("no_sub", "no `sub`", forge.without("sub")),
    ("no_caller", "an empty `sub` and no `common_name`", forge.claims(sub="")),
    ("aud_empty", "no audience", forge.claims(aud=[])),
    ("aud_mixed", "an audience that is a number", forge.audience(lambda own: [own[0], 5])),
    ("exp_text", "`exp` as text", forge.claim("exp", str)),
    ("exp_true", "`exp` true", forge.claims(exp=True)),
    ("exp_fraction", "a fractional `exp`", forge.claim("exp", lambda exp: exp + 0.5)),
    ("exp_out_of_range", "`exp` after the year 9999", forge.claims(exp=10**15)),
    ("nbf_null", "`nbf` null", forge.claims(nbf=None)),
    ("sub_number", "`sub` as a number", forge.claims(sub=7)),
    ("email_list", "`email` as a list", forge.claim("email", lambda email: [email])),
)
_ISSUER: Rows = (
    ("wrong_issuer", "another team's `iss`", forge.claim("iss", forge.foreign_issuer)),
    ("issuer_with_slash", "`iss` with a trailing slash", forge.claim("iss", "{}/".format)),
    ("other_team", "another team's issuer and key", forge.other_team),
    ("issuer_of_saas_app", "`iss` of an OIDC application", forge.claim("iss", "{}/cdn-cgi/access/sso/oidc/7".format)),
)
_AUDIENCE: Rows = (
    ("wrong_audience", "another application's `aud`", forge.audience(forge.foreign_audience)),
    ("audience_shorter", "a prefix of the right `aud`", forge.audience(lambda own: [min(own, key=len)[:-1]])),
    (
        "audience_longer",
        "an `aud` with the right one as its prefix",
        forge.audience(lambda own: [max(own, key=len) + "0"]),
    ),
)
_TYPE: Rows = (
    ("org", "the global session token", lambda base: base.team.org_token(base.claims["email"])),
    ("org_for_app", "valid claims except `type`", forge.claims(type="org")),
    ("meta", "the token of a login redirect", lambda base: base.team.meta_token()),
    ("match", "the public metadata token", lambda base: base.team.match_token()),
)
_PAST: Rows = (
    ("expired", "`exp` an hour ago", forge.shifted("exp", hours=-1)),
    ("long_expired", "`exp` in 1970", forge.claims(exp=1)),
    ("unknown_kid_expired", "expired, signed by an unpublished key", forge.unpublished_key(exp=1)),
)
_FUTURE: Rows = (
    ("not_yet_valid", "`nbf` in an hour", forge.shifted("nbf", hours=1)),
    ("issued_ahead", "`iat` in an hour", forge.shifted("iat", hours=1)),
)
_ALL: tuple[tuple[type[CredentialError], Rows], ...] = (
    (MalformedToken, _SHAPE + _HEADER + _PAYLOAD),
    (UnsupportedAlgorithm, _ALGORITHM),
    (UnknownKey, _KEY),
    (InvalidSignature, _SIGNATURE),
    (InvalidClaims, _CLAIMS),
    (WrongIssuer, _ISSUER),
    (WrongAudience, _AUDIENCE),
    (WrongType, _TYPE),
    (TokenExpired, _PAST),
    (TokenNotYetValid, _FUTURE),
)

FORGERIES: Mapping[str, Forgery] = MappingProxyType(
    {name: Forgery(name, error, about, make) for error, rows in _ALL for name, about, make in rows}
)
"""All forgeries by name."""
