"""One token to typed claims: this package and its peers, against the RSA operation that all of them need."""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any

from aims import BASE, REMEMBERED, TOKEN, VERIFIED
from material import REFUSALS, TEAM, TOKENS, bare, user_token, verifier
from serving import headers as everywhere
from timing import Figure, Turn, interleave, plain, straight, table

from fastapi_cloudflare_access._verification import token as _token
from fastapi_cloudflare_access._verification.request_token import find_token
from fastapi_cloudflare_access._verification.strict import decode_base64url, parse_json_object
from fastapi_cloudflare_access._verifier import Verifier, build_claims
from fastapi_cloudflare_access.errors import AccessError

CURVE = (1000, 2000, 4000, 8000)
TIMES = 10
Figures = dict[str, Figure]


def verifying(verifier: Verifier[Any], token: str) -> Turn:
    """Return turns that verify one token again and again."""
    wire = token.encode()
    return straight(lambda: verifier.verify(wire))


def contenders(token: str) -> dict[str, Turn]:
    """Return turns of every contender over one token."""
    turns = {
        BASE: plain(bare(token)),
        VERIFIED: verifying(verifier(token_cache_size=0), token),
        REMEMBERED: verifying(verifier(), token),
    }
    return turns | {name: plain(verify) for name, verify in by_others(token).items()}


def by_others(token: str) -> dict[str, Callable[[], object]]:
    """Return the verification of this token by each peer."""
    from peers import PEERS  # noqa: PLC0415 - the guard of CI and the tests do without them

    operations = {name: partial(prepare(), token) for name, prepare in PEERS.items()}
    for verify in operations.values():
        verify()
    return operations


def refusals(rounds: int) -> Figures:
    """Measure how long a refusal takes."""
    ours = verifier()
    turns = {BASE: plain(bare(TOKENS[TOKEN]))}
    for name in REFUSALS:
        wire = TEAM.forge(name).encode()
        turns[name] = straight(partial(_refused, ours, wire))
    return interleave(turns, rounds=rounds, times=TIMES)


async def _refused(ours: Verifier[Any], wire: bytes) -> None:
    try:
        await ours.verify(wire)
    except AccessError:
        return
    raise AssertionError("not refused")


def curve(rounds: int) -> dict[str, Figures]:
    """Measure how the time grows with the token; for a known token only the SHA-256 grows."""
    found = {}
    for size in CURVE:
        token = user_token(size)
        turns = {BASE: plain(bare(token)), VERIFIED: verifying(verifier(token_cache_size=0), token)}
        turns[REMEMBERED] = verifying(verifier(), token)
        found[str(len(token))] = interleave(turns, rounds=rounds, times=TIMES)
    return found


def steps(rounds: int) -> Figures:
    """Measure each step alone, on the same token."""
    ours, token = verifier(token_cache_size=0), TOKENS[TOKEN].encode()
    parsed, now = _token.parse(token), ours.keys.clock.now()
    key, settings = ours.keys.get(parsed.kid), ours.settings
    assert key is not None
    claims = parse_json_object(parsed.payload)
    _token.check_claims(claims, settings=settings, now=now)
    _, payload, signature = token.split(b".")
    headers = [(name.lower().encode(), value.encode()) for name, value in everywhere(token.decode()).items()]
    turns = {
        "everything": straight(lambda: ours.verify(token)),
        BASE: plain(bare(token.decode())),
        "RSA by python-jose": plain(lambda: key.verifies(parsed.signature, parsed.signing_input)),
        "base64url": plain(lambda: (decode_base64url(payload), decode_base64url(signature))),
        "shape and header": plain(lambda: _token.parse(token)),
        "strict JSON": plain(lambda: parse_json_object(parsed.payload)),
        "claims": plain(lambda: _token.check_claims(claims, settings=settings, now=now)),
        "typed model": plain(lambda: build_claims(claims, ours.user_model, issuer=ours.settings.issuer)),
        "key lookup": plain(lambda: ours.keys.get(parsed.kid)),
        "finding the token": plain(lambda: find_token(headers, settings.token_sources)),
        "SHA-256": plain(lambda: sha256(token).digest()),
    }
    return interleave(turns, rounds=rounds, times=TIMES, base=BASE)


def bar(found: Figures) -> dict[str, float]:
    """Return the steps as shares of one verification, in units of the bare RSA operation."""
    ratio = {name: one.ratio for name, one in found.items()}
    parts = {
        "RSA": 1.0,
        "python-jose": ratio["RSA by python-jose"] - 1,
        "base64url": ratio["base64url"],
        "shape and header": ratio["shape and header"] - ratio["base64url"],
        "strict JSON": ratio["strict JSON"],
        "claims": ratio["claims"],
        "typed model": ratio["typed model"],
        "key lookup": ratio["key lookup"],
    }
    parts["the rest"] = ratio["everything"] - sum(parts.values())
    return {name: round(max(0.0, share), 4) for name, share in parts.items()}


def _json(figures: Figures) -> dict[str, dict[str, float]]:
    return {name: one.json() for name, one in figures.items()}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure this section, print it and return it."""
    rounds = 30 if quick else 400
    everyone = {name: interleave(contenders(token), rounds=rounds, times=TIMES) for name, token in TOKENS.items()}
    for name, figures in everyone.items():
        table(f"Verification: {name}, {len(TOKENS[name])} bytes", figures)
    refused, grown, parts = refusals(rounds // 2), curve(rounds // 2), steps(rounds)
    table("Refusals", refused)
    for size, figures in grown.items():
        table(f"By size: {size} bytes", figures)
    table("Where the time goes", parts)
    return {
        "tokens": {name: _json(figures) for name, figures in everyone.items()},
        "bytes": {name: len(token) for name, token in TOKENS.items()},
        "refusals": _json(refused),
        "curve": {size: _json(figures) for size, figures in grown.items()},
        "steps": _json(parts),
        "bar": bar(parts),
    }


if __name__ == "__main__":
    run()
