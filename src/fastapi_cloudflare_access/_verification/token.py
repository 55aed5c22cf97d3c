"""From the bytes of a token to verified claims. Pure: keys, settings and time are arguments.

`parse` checks size and shape. `verify` then checks the signature first, and the claims after it. `_verifier` lists the
whole order.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from fastapi_cloudflare_access._verification.signature import ALGORITHM
from fastapi_cloudflare_access._verification.strict import (
    EncodingProblem,
    NotBase64url,
    decode_base64url,
    is_kid,
    parse_json_object,
)
from fastapi_cloudflare_access.claims import MAX_TIME
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
from fastapi_cloudflare_access.settings import Settings

MAX_TOKEN = 16 * 1024
"""Number of bytes that a token may have."""
MAX_HEADER = 1024
"""Number of bytes that its decoded JOSE header may have."""
MAX_UNVERIFIED_PAYLOAD = 8 * 1024
"""Number of bytes that a payload may have to be read before its signature is verified."""
PARTS = 3
"""Number of parts of a token, separated by dots."""

SHOWN, SHOWN_TAGS = 8, 3
"""Number of characters of an AUD tag, and of tags, that the message of an error shows."""

_FORBIDDEN_PARAMETERS = frozenset(
    {"crit", "b64", "zip", "enc", "cty", "p2c", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"}
)
_BEARER = b"bearer "
_TYPES = frozenset({"jwt", "application/jwt"})


class ParsedToken(NamedTuple):
    """A well-formed token, none of it verified yet.

    Attributes:
        kid: The `kid` of its header.
        signing_input: The bytes that the signature covers: header, dot, payload.
        payload: The decoded payload.
        signature: The decoded signature.
    """

    kid: str
    signing_input: bytes
    payload: bytes
    signature: bytes


class VerifyingKey(Protocol):
    """A key that can verify signatures."""

    def verifies(self, signature: bytes, signing_input: bytes) -> bool:
        """Check a signature over the signing input."""
        ...


def parse(token: bytes) -> ParsedToken:
    """Parse a compact JWS (RFC 7515 sections 3.1 and 5.2).

    Raises:
        MalformedToken: For a wrong size, shape, encoding or header.
        UnsupportedAlgorithm: For an `alg` other than RS256.
    """
    if len(token) > MAX_TOKEN:
        raise MalformedToken("the token is too long")
    signing_input, _, signature = token.rpartition(b".")
    header, _, payload = signing_input.partition(b".")
    try:
        decoded = decode_base64url(payload), decode_base64url(signature)
        return ParsedToken(_read_header(header), signing_input, *decoded)
    except EncodingProblem as problem:
        raise MalformedToken(_damage(token, problem)) from None


def _damage(token: bytes, problem: EncodingProblem) -> str:
    """Return what is wrong with the shape of a token; most such tokens were cut by a limit, or copied in part."""
    if token[: len(_BEARER)].lower() == _BEARER:
        return "the token begins with 'Bearer ', which is not part of it: send it alone"
    if (parts := token.count(b".") + 1) != PARTS:
        return f"the token is cut or damaged: it has {parts} part{'' if parts == 1 else 's'}, and a token has 3"
    if isinstance(problem, NotBase64url):
        return "the token is cut or damaged: a part of it is not canonical base64url"
    return f"the token is not three base64url segments around JSON: {problem}"


@lru_cache(maxsize=64)
def _read_header(segment: bytes) -> str:
    """Return the `kid` of a JOSE header whose only algorithm is RS256 (RFC 7515 section 4.1, RFC 8725 section 3)."""
    if len(segment) > (MAX_HEADER * 4 + 2) // 3:
        raise MalformedToken("the header is too long")
    header = parse_json_object(decode_base64url(segment))
    if header.get("alg") != ALGORITHM:
        raise UnsupportedAlgorithm("the algorithm is not RS256")
    if not _FORBIDDEN_PARAMETERS.isdisjoint(header):
        raise MalformedToken("the header has a parameter that Access never sets")
    if "typ" in header and str(header["typ"]).lower() not in _TYPES:
        raise MalformedToken("the header's typ is not JWT")
    if not is_kid(kid := header.get("kid")):
        raise MalformedToken("the header has no usable kid")
    return str(kid)


def verify(parsed: ParsedToken, *, key: VerifyingKey, settings: Settings, now: float) -> dict[str, Any]:
    """Return the claims of a token that this key signed and these settings accept.

    Raises:
        CredentialError: The token is not valid; the class says why.
    """
    if not key.verifies(parsed.signature, parsed.signing_input):
        raise InvalidSignature("the signature is wrong")
    return parse_and_check_claims(parsed.payload, settings=settings, now=now)


def parse_and_check_claims(payload: bytes, *, settings: Settings, now: float) -> dict[str, Any]:
    """Parse a payload and check its claims.

    `verify` calls it after the signature check; `precheck` calls it without one.

    Raises:
        CredentialError: The token is not valid; the class says why.
    """
    try:
        claims = parse_json_object(payload)
    except EncodingProblem as problem:
        raise MalformedToken(f"the payload is malformed: {problem}") from None
    check_claims(claims, settings=settings, now=now)
    return claims


def precheck(parsed: ParsedToken, *, settings: Settings, now: float) -> None:
    """Check the unverified claims of a token whose key is unknown, before the keys are fetched for it.

    Raises:
        CredentialError: The claims could not pass, whatever the key; the error is marked `unverified`.
    """
    try:
        if len(parsed.payload) > MAX_UNVERIFIED_PAYLOAD:
            raise UnknownKey("the key is unknown, and the payload too long to be read without it")
        parse_and_check_claims(parsed.payload, settings=settings, now=now)
    except CredentialError as problem:
        problem.unverified = True
        raise


def check_claims(claims: dict[str, Any], *, settings: Settings, now: float) -> None:
    """Check the registered claims (RFC 7519 section 4.1) and those of Access; `aud` becomes a tuple.

    Fast path for valid tokens: plain comparisons come first. The precise error is worked out only after one fails.

    Raises:
        CredentialError: `WrongType`, `WrongIssuer`, `WrongAudience`, `TokenExpired`, `TokenNotYetValid`, or
            `InvalidClaims` for a claim that is missing or of the wrong type.
    """
    if claims.get("type") != "app":
        _text(claims, "type")
        raise WrongType("the token is not one for an application")
    if (iss := claims.get("iss")) != settings.issuer and iss not in settings.former_team_domains:
        _text(claims, "iss")
        raise WrongIssuer(f"the issuer is not the configured team: {settings.issuer}")
    claims["aud"] = audience = _audience(claims.get("aud"))
    if settings.audience_tags.isdisjoint(audience):
        raise wrong_audience(settings.audience)
    _check_times(claims, settings, now)
    sub = claims.get("sub")
    if type(sub) is not str:
        raise _unusable("sub")
    if not sub and not _text(claims, "common_name"):
        raise InvalidClaims("the caller is neither a user nor a service")
    if "jti" in claims:
        _text(claims, "jti")


def wrong_audience(configured: Sequence[str]) -> WrongAudience:
    """Return the error for an audience that is not configured; its message has the start of the first three that are.

    An AUD tag is no secret, and an operator who has copied one badly sees it.
    """
    return WrongAudience(f"the audience is none of the configured ones: {shown_tags(configured)}")


def shown_tags(tags: Sequence[str]) -> str:
    """Return the start of each of the first three AUD tags."""
    shown = ", ".join(tag if len(tag) <= SHOWN else f"{tag[:SHOWN]}…" for tag in tags[:SHOWN_TAGS])
    return f"{shown}, …" if len(tags) > SHOWN_TAGS else shown


def _check_times(claims: dict[str, Any], settings: Settings, now: float) -> None:
    exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    if type(exp) is not int or not 0 <= exp <= MAX_TIME:
        raise _no_time("exp")
    if now >= exp + settings.exp_leeway:
        raise TokenExpired("the token has expired")
    if type(iat) is not int or not 0 <= iat <= MAX_TIME:
        raise _no_time("iat")
    if iat - settings.nbf_leeway > now:
        raise TokenNotYetValid("the token was issued in the future")
    if type(nbf) is not int or not 0 <= nbf <= MAX_TIME:
        raise _no_time("nbf")
    if nbf - settings.nbf_leeway > now:
        raise TokenNotYetValid("the token is not valid yet")


def _text(claims: dict[str, Any], name: str) -> str:
    value: str | None = claims.get(name)
    if type(value) is not str:
        raise _unusable(name)
    return value


def _unusable(name: str) -> InvalidClaims:
    return InvalidClaims(f"the claim {name} is missing or of the wrong type")


def _no_time(name: str) -> InvalidClaims:
    return InvalidClaims(f"the claim {name} is missing, of the wrong type or out of range")


def _audience(value: Any) -> tuple[str, ...]:
    if type(value) is str:
        return (value,)
    if type(value) in (list, tuple) and {*map(type, value)} == {str}:
        return tuple(value)
    raise _unusable("aud")
