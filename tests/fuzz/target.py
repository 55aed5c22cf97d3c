"""What fuzzers call: hostile bytes in, and an AssertionError or a strange exception where something gave way.

Run it with coverage guidance: `python tests/fuzz/target.py tests/fuzz/corpus -max_total_time=60`.
"""

import base64
import json
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

NOW = 1_800_000_000
MAX_KEYS = 32


def load() -> Callable[[bytes], None]:  # noqa: C901, PLR0915 - one function for each kind of input
    """Import the package, instrumented or not, and give the target."""
    from fastapi_cloudflare_access import errors
    from fastapi_cloudflare_access._keys import jwks
    from fastapi_cloudflare_access._verification import request_token, strict
    from fastapi_cloudflare_access._verification import token as tokens
    from fastapi_cloudflare_access.settings import Settings

    settings = Settings.load(team_domain="acme", audience="tag")
    refusals = (errors.MalformedToken, errors.UnsupportedAlgorithm)

    class Yes:
        """A key that verifies whatever it is shown: everything behind the signature is reached."""

        def verifies(self, signature: bytes, signing_input: bytes) -> bool:
            return True

    def token(data: bytes) -> None:
        try:
            parsed = tokens.parse(data)
        except refusals:
            return
        header, payload, signature = data.split(b".")
        assert (parsed.payload, parsed.signature) == (canonical(payload), canonical(signature))
        fields = json.loads(canonical(header))
        assert (fields["alg"], fields["kid"]) == ("RS256", parsed.kid)
        assert not {"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"} & {*fields}
        claims(parsed.payload)

    def claims(data: bytes) -> None:
        parsed = tokens.ParsedToken("kid", b"", data, b"")
        try:
            accepted = tokens.verify(parsed, key=Yes(), settings=settings, now=NOW)
        except errors.CredentialError as refusal:
            screened(parsed, reason=refusal.reason)
            return
        screened(parsed, reason=None)
        right(json.loads(data), accepted)

    def screened(parsed: Any, *, reason: str | None) -> None:
        """Check that claims fail for the same reason before their key is known, and are then marked."""
        if len(parsed.payload) > tokens.MAX_UNVERIFIED_PAYLOAD:
            reason = errors.UnknownKey.reason
        found = None
        try:
            tokens.precheck(parsed, settings=settings, now=NOW)
        except errors.CredentialError as refusal:
            found = refusal.reason if refusal.unverified else "not marked"
        assert found == reason

    def document(data: bytes) -> None:
        try:
            found = jwks.parse_jwks(data)
        except jwks.JwksProblem:
            return
        assert {kid: key._material for kid, key in found.keys.items()} == right_keys(json.loads(data))

    def text(data: bytes) -> None:
        try:
            value = strict.parse_json_object(data)
        except strict.EncodingProblem:
            return
        assert type(value) is dict
        assert value == json.loads(data)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()

    def cookies(data: bytes) -> None:
        jar, _, second = data.partition(b"\0")
        headers = [(b"cookie", jar), (b"cookie", second)]
        try:
            found = request_token.find_token(headers, ("header", "cookie"))
        except (errors.MalformedToken, errors.AmbiguousToken):
            return
        values = {value for one in (jar, second) for value in naive(one)}
        assert values == ({found} if found is not None else set())

    def wrapped(data: bytes) -> None:
        header, _, payload = data.partition(b"\0")
        token(b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload, b"signature")))

    kinds = (token, claims, document, text, cookies, wrapped)

    def one_input(data: bytes) -> None:
        if data:
            kinds[data[0] % len(kinds)](data[1:])

    return one_input


def canonical(segment: bytes) -> bytes:
    """Decode base64url in the plain way, and see that there is no other spelling."""
    decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    assert base64.urlsafe_b64encode(decoded).rstrip(b"=") == segment
    return decoded


def right(claims: dict[str, Any], accepted: dict[str, Any]) -> None:
    """Every rule of the claims, written a second time."""
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    assert accepted == {**claims, "aud": tuple(audience)}
    assert claims["type"] == "app"
    assert claims["iss"] == "https://acme.cloudflareaccess.com"
    assert "tag" in audience
    assert all(isinstance(tag, str) for tag in audience)
    times = [claims[name] for name in ("exp", "iat", "nbf") if name in claims]
    assert all(type(time) is int and 0 <= time < 253_402_300_800 for time in times)
    assert claims["exp"] + 10 > NOW
    assert claims["iat"] <= NOW + 30
    assert claims.get("nbf", 0) <= NOW + 30
    assert isinstance(claims["sub"], str)
    assert claims["sub"] or (isinstance(claims["common_name"], str) and claims["common_name"])


def right_keys(document: Any) -> dict[str, tuple[str, str]]:
    """Every rule of the keys, written a second time: the material of each that is to be used, by its id."""
    entries = document["keys"]
    assert len(entries) <= MAX_KEYS
    found: dict[str, set[tuple[str, str]]] = {}
    for entry in entries:
        if isinstance(entry, dict) and is_sound(entry):
            found.setdefault(entry["kid"], set()).add((entry["n"], entry["e"]))
    return {kid: next(iter(material)) for kid, material in found.items() if len(material) == 1}


def is_sound(entry: dict[str, Any]) -> bool:
    """Tell whether a key is for RS256, for verifying, public, strong and spelt in the one way."""
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    numbers = [integer(entry.get(name)) for name in ("n", "e")]
    n, e = numbers
    return (
        (entry.get("kty"), entry.get("alg", "RS256"), entry.get("use", "sig")) == ("RSA", "RS256", "sig")
        and isinstance(operations, list)
        and "verify" in operations
        and not {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & {*entry}
        and isinstance(kid, str)
        and 1 <= len(kid) <= 256
        and all(" " <= letter <= "~" for letter in kid)
        and 2**2047 <= n < 2**8192
        and 2**16 < e < 2**32
        and e % 2 == 1
        and not is_weak(n)
    )


def integer(text: object) -> int:
    """Read a number of a key; 0 where it is none, or is spelt in another way."""
    if not isinstance(text, str) or not text.isascii():
        return 0
    try:
        octets = canonical(text.encode())
    except (AssertionError, ValueError):
        return 0
    return 0 if octets.startswith(b"\0") else int.from_bytes(octets)


@lru_cache(maxsize=1024)
def is_weak(n: int) -> bool:
    """Check whether the package takes a modulus for easy to factor; that has tests of its own."""
    from fastapi_cloudflare_access._keys import jwks

    return bool(vars(jwks)["weakness"](n))


def naive(jar: bytes) -> list[bytes]:
    """Read cookies pair by pair."""
    pairs = (pair.partition(b"=") for pair in jar.split(b";"))
    return [value.strip(b" \t") for name, _, value in pairs if name.strip(b" \t") == b"CF_Authorization"]


def only_parity() -> None:
    """Check moduli for being even alone: the rest takes a thousand times as long as all other checks."""
    from fastapi_cloudflare_access._keys import jwks

    setattr(jwks, "weakness", lambda modulus: modulus % 2 == 0)  # noqa: B010 - not exported


def main() -> None:
    """Fuzz until told to stop, by the options of libFuzzer."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    modules = ["_keys.jwks", *(f"_verification.{name}" for name in ("token", "strict", "request_token", "signature"))]
    instrumented: Any = atheris.instrument_imports  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    with instrumented(include=[f"fastapi_cloudflare_access.{name}" for name in modules] + ["json"]):
        one_input = load()
        only_parity()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
    main()
