"""`cf-access verify`: the verification by hand, step by step, and what the app says."""

from dataclasses import dataclass
from typing import Literal

from fastapi_cloudflare_access._keys.jwks import JwksProblem, KeySet, parse_jwks
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.token import Parsed, parse
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.cli.certs import SAVE_HINT
from fastapi_cloudflare_access.cli.configuration import Configuration
from fastapi_cloudflare_access.cli.formatting import relative, short
from fastapi_cloudflare_access.cli.hints import refusal
from fastapi_cloudflare_access.cli.inspection import inspect_token
from fastapi_cloudflare_access.cli.key_description import describe_keys, validity
from fastapi_cloudflare_access.cli.offline_verification import caller_of, judge
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import Caller, Key, Step, Verdict, VerifyReport
from fastapi_cloudflare_access.cli.tokens import facts
from fastapi_cloudflare_access.errors import (
    AccessError,
    InvalidSignature,
    KeysUnavailable,
    TemporarilyUnavailable,
    UnknownKey,
)
from fastapi_cloudflare_access.protocols import Clock

NAMES = ("token", "key", "signature", "claims")
"""The steps, in order."""


@dataclass(frozen=True, slots=True)
class Certs:
    """A certs document and where it came from.

    Attributes:
        document: The document.
        source: Where it was read.
        origin: Whether the team gave it, or a file has it, or it was made of a PEM certificate, which has no `kid` of
            its own.
    """

    document: bytes
    source: str
    origin: Literal["team", "file", "certificate"] = "team"


async def verify_token(token: bytes, certs: Certs, configuration: Configuration, clock: Clock) -> VerifyReport:
    """Verify a token by these certs; the verdict is the app's own."""
    steps, failure = _by_hand(token, certs, clock.now())
    settings = configuration.settings
    if settings is None:
        verdict = _advised(failure or _unread(configuration), token, certs)
        return _report(token, [*steps, *_skipped(steps)], verdict, None)
    outcome = await judge(token, certs.document, settings=settings, clock=clock)
    if isinstance(outcome, AccessError):
        verdict = _advised(_refused(outcome, failure, token, configuration, clock.now()), token, certs)
        if failure is None:
            steps.append(_failed("claims", verdict))
        return _report(token, [*steps, *_skipped(steps)], verdict, None)
    steps.append(_accepted_claims(outcome, clock.now()))
    caller = caller_of(outcome)
    text = f"this configuration accepts it: the {caller.kind} {caller.email or caller.id}"
    return _report(token, steps, Verdict(accepted=True, text=text), caller)


def kid_of(token: bytes) -> str:
    """Give the `kid` of a token, for a certificate that has none of its own; any, where the token is malformed."""
    try:
        return parse(token).kid
    except AccessError:
        return "none"


def _by_hand(token: bytes, certs: Certs, now: float) -> tuple[list[Step], Verdict | None]:
    """Walk from the token to its signature; stop with what fails."""
    steps: list[Step] = []
    try:
        parsed = parse(token)
        steps.append(Step(name="token", status="ok", text=f"three parts, RS256, its kid is {parsed.kid}"))
        key, described = _find_key(parsed, certs, now)
        steps.append(_found_key(described, certs, now))
        if not key.verifies(parsed.signature, parsed.signed):
            raise InvalidSignature(_about_signature(parsed, described))
    except AccessError as error:
        verdict = refusal(error)
        return [*steps, _failed(NAMES[len(steps)], verdict)], verdict
    steps.append(Step(name="signature", status="ok", text="verified with that key"))
    return steps, None


def _find_key(parsed: Parsed, certs: Certs, now: float) -> tuple[RS256Key, Key]:
    keys = _key_set(certs)
    described = describe_keys(certs.document, now=now)
    key = keys.keys.get(parsed.kid)
    if key is not None:
        return key, next(entry for entry in described if entry.kid == parsed.kid and entry.usable)
    problems = [entry.problem for entry in described if entry.kid == parsed.kid]
    if problems:
        raise UnknownKey(f"the key {short(parsed.kid)} of {certs.source} cannot be used: {problems[0]}")
    known = ", ".join(short(kid) for kid in keys.keys)
    raise UnknownKey(f"{certs.source} has no key {short(parsed.kid)}; it has {known}")


def _key_set(certs: Certs) -> KeySet:
    try:
        return parse_jwks(certs.document)
    except JwksProblem as problem:
        raise KeysUnavailable(f"{certs.source}: {problem}") from None


def _found_key(key: Key, certs: Certs, now: float) -> Step:
    if key.certificate is None:
        text = f"{certs.source} has it under keys; there is no certificate of it under public_certs"
        return Step(name="key", status="ok", text=text)
    valid = validity(key.certificate, now)
    if not key.certificate.same_key:
        text = f"{certs.source} has it under keys; the certificate of that kid is of another key"
        return Step(name="key", status="warning", text=text, hint="take the certs document from the team again")
    text = "is the certificate to try" if certs.origin == "certificate" else "has its certificate under public_certs"
    return Step(name="key", status="ok", text=f"{certs.source} {text}, {valid}")


def _about_signature(parsed: Parsed, key: Key) -> str:
    expected = ((key.bits or 0) + 7) // 8
    if len(parsed.signature) == expected:
        return "the signature is wrong"
    return f"the signature is wrong: it has {len(parsed.signature)} bytes in place of {expected}"


def _accepted_claims(claims: UserClaims | ServiceClaims, now: float) -> Step:
    text = f"type, issuer, audience and times fit; it expires {relative(claims.exp, now)}"
    return Step(name="claims", status="ok", text=text)


def _refused(
    error: AccessError, failure: Verdict | None, token: bytes, configuration: Configuration, now: float
) -> Verdict:
    if isinstance(error, TemporarilyUnavailable):
        return failure or refusal(error)  # what was found by hand says more than that no keys came
    claims = inspect_token(token, configuration, now).claims
    return refusal(error, claims=claims, settings=configuration.settings, now=now)


def _advised(verdict: Verdict, token: bytes, certs: Certs) -> Verdict:
    """Give the advice that fits where the keys are from."""
    hint = verdict.hint
    if verdict.reason == KeysUnavailable.reason and certs.origin == "file":
        hint = SAVE_HINT
    if verdict.reason == InvalidSignature.reason and certs.origin == "certificate":
        hint = (
            f"look whether {certs.source} is the certificate of kid {short(kid_of(token))} under public_certs; "
            "where it is, the token was cut, changed or signed by somebody else"
        )
    return verdict.model_copy(update={"hint": hint})


def _unread(configuration: Configuration) -> Verdict:
    text = "the signature is good, but whether the claims fit is not known"
    return Verdict(accepted=None, text=f"{text}: {configuration.problem}")


def _failed(name: str, verdict: Verdict) -> Step:
    return Step(name=name, status="failed", text=verdict.text, reason=verdict.reason)


def _skipped(steps: list[Step]) -> list[Step]:
    return [Step(name=name, status="skipped", text="not looked at") for name in NAMES[len(steps) :]]


def _report(token: bytes, steps: list[Step], verdict: Verdict, caller: Caller | None) -> VerifyReport:
    return VerifyReport(token=facts(token), steps=steps, verdict=verdict, caller=caller)


def show(report: VerifyReport, screen: Screen) -> None:
    """Write a report for people."""
    for step in report.steps:
        screen.step(step)
    screen.line()
    screen.verdict(report.verdict)
