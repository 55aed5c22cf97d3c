"""Broken tokens by name: for each reason code that a token can cause there is at least one."""

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
from fastapi_cloudflare_access.testing import _forging as by


@dataclass(frozen=True, slots=True)
class Forgery:
    """A way to break a token.

    Attributes:
        name: What `team.forge` takes.
        error: Why an app refuses it.
        about: What is wrong with it.
        make: Makes one.
    """

    name: str
    error: type[CredentialError]
    about: str
    make: by.Make

    @property
    def reason(self) -> str:
        """The reason code that the app logs."""
        return self.error.reason


Rows = tuple[tuple[str, str, by.Make], ...]

_SHAPE: Rows = (
    ("empty", "no text at all", lambda _: ""),
    ("bearer_prefix", "`Bearer ` before the token", by.text("Bearer {}".format)),
    ("two_segments", "no signature", by.text(lambda token: token.rpartition(".")[0])),
    ("five_segments", "the shape of an encrypted token", by.text("{}.AA.AA".format)),
    ("alg_none", "`alg` none and an empty signature", by.signature(by.nothing, alg="none")),
    ("padded", "`=` after the signature", by.text("{}==".format)),
    ("not_base64url", "`+` in the signature", by.text(lambda token: token[:-4] + "++++")),
    ("not_canonical", "the same signature, written in another way", by.text(by.other_trailing_bits)),
    ("oversized", "more than 16 KiB", by.claims(custom={"note": "x" * 16_384})),
)
_HEADER: Rows = (
    ("header_oversized", "a header of more than 1 KiB", by.header(note="x" * 1024)),
    ("header_not_json", "a header that is no JSON", by.header_bytes(lambda _: b"not json")),
    ("header_twice", "`alg` twice", by.header_bytes(lambda whole: whole[:-1] + b',"alg":"RS256"}')),
    ("header_deep", "lists in lists", by.header(note=by.nested(100))),
    ("crit", "an extension that must be understood", by.header(crit=["b64"], b64=False)),
    ("embedded_jwk", "the key to verify it with", by.embedded_key),
    ("remote_jku", "a URL of keys", by.header(jku="https://evil.example/certs")),
    ("other_typ", "another kind of JWT", by.header(typ="at+jwt")),
    ("no_kid", "no key id", by.header_without("kid")),
    ("kid_list", "a list as key id", by.header(kid=["a", "b"])),
)
_PAYLOAD: Rows = (
    ("payload_not_json", "a payload that is no JSON", by.payload(lambda _: b"not json")),
    ("payload_list", "a list as payload", by.payload(b"[%b]".__mod__)),
    ("payload_twice", "`email` twice", by.member(b'"email":"mallory@example.com"')),
    ("payload_deep", "lists in lists", by.claims(note=by.nested(100))),
    ("nan", "a claim that is NaN", by.member(b'"level":NaN')),
    ("infinite", "a claim of 1e400", by.member(b'"level":1e400')),
    ("lone_surrogate", "a claim that is no text", by.member(rb'"note":"\ud800"')),
)
_ALGORITHM: Rows = (
    ("alg_none_signed", "`alg` none over a good signature", by.header(alg="none")),
    ("alg_missing", "no `alg`", by.header_without("alg")),
    ("alg_list", "a list as `alg`", by.header(alg=["RS256"])),
    ("alg_lower_case", "`alg` rs256", by.header(alg="rs256")),
    ("hs256_confusion", "HMAC with the public key as secret", by.signature(by.hmac_with_public_key, alg="HS256")),
    ("ps256", "RSA-PSS by the right key", by.signature(by.pss, alg="PS256")),
    ("rs512", "SHA-512 by the right key", by.signature(by.sha512, alg="RS512")),
    ("es256", "an elliptic curve", by.signature(by.ecdsa, alg="ES256")),
)
_KEY: Rows = (("unknown_kid", "good claims, by a key never published", by.stranger()),)
_SIGNATURE: Rows = (
    ("tampered_payload", "other claims", by.segment(1, by.claim("email", "mallory+{}".format))),
    ("tampered_header", "another header", by.segment(0, by.header(typ="JWT"))),
    ("tampered_signature", "the signature of another token", by.segment(2, by.claims(country="NL"))),
    ("wrong_key", "signed by a stranger", by.under_our_kid(lambda base: base.stranger)),
    ("previous_key", "signed by the last key", by.under_our_kid(lambda base: base.previous)),
    ("short_signature", "one octet too few", by.signature(lambda key, data: key.sign(data)[:-1])),
    ("pss_as_rs256", "RSA-PSS under `alg` RS256", by.signature(by.pss)),
    ("sha512_as_rs256", "SHA-512 under `alg` RS256", by.signature(by.sha512)),
)
_CLAIMS: Rows = (
    ("no_type", "no `type`", by.without("type")),
    ("no_iss", "no `iss`", by.without("iss")),
    ("no_aud", "no `aud`", by.without("aud")),
    ("no_exp", "no `exp`", by.without("exp")),
    ("no_iat", "no `iat`", by.without("iat")),
    ("no_sub", "no `sub`", by.without("sub")),
    ("nobody", "an empty `sub` and no `common_name`", by.claims(sub="")),
    ("aud_empty", "no audience", by.claims(aud=[])),
    ("aud_mixed", "an audience that is a number", by.audience(lambda own: [own[0], 5])),
    ("exp_text", "`exp` as text", by.claim("exp", str)),
    ("exp_true", "`exp` true", by.claims(exp=True)),
    ("exp_fraction", "`exp` with a fraction", by.claim("exp", lambda exp: exp + 0.5)),
    ("exp_out_of_range", "`exp` after the year 9999", by.claims(exp=10**15)),
    ("nbf_null", "`nbf` null", by.claims(nbf=None)),
    ("sub_number", "`sub` as a number", by.claims(sub=7)),
    ("email_list", "`email` as a list", by.claim("email", lambda email: [email])),
)
_ISSUER: Rows = (
    ("wrong_issuer", "another team's `iss`", by.claim("iss", by.foreign_issuer)),
    ("issuer_with_slash", "`iss` and a slash", by.claim("iss", "{}/".format)),
    ("other_team", "another team's issuer and key", by.other_team),
    ("issuer_of_saas_app", "`iss` of an OIDC application", by.claim("iss", "{}/cdn-cgi/access/sso/oidc/7".format)),
)
_AUDIENCE: Rows = (
    ("wrong_audience", "another application's `aud`", by.audience(by.foreign_audience)),
    ("audience_shorter", "an `aud` that ours begins with", by.audience(lambda own: [min(own, key=len)[:-1]])),
    ("audience_longer", "an `aud` that begins with ours", by.audience(lambda own: [max(own, key=len) + "0"])),
)
_TYPE: Rows = (
    ("org", "the global session token", lambda base: base.team.org_token(base.claims["email"])),
    ("org_for_app", "the right claims but for `type`", by.claims(type="org")),
    ("meta", "the token of a login redirect", lambda base: base.team.meta_token()),
    ("match", "the token that anybody gets", lambda base: base.team.match_token()),
)
_PAST: Rows = (
    ("expired", "`exp` an hour ago", by.hours(-1, "exp")),
    ("long_expired", "`exp` in 1970", by.claims(exp=1)),
    ("unknown_kid_expired", "good claims but `exp`, by a key never published", by.stranger(exp=1)),
)
_FUTURE: Rows = (
    ("not_yet_valid", "`nbf` in an hour", by.hours(1, "nbf")),
    ("issued_ahead", "`iat` in an hour", by.hours(1, "iat")),
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
"""Every forgery by its name."""
