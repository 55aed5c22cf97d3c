"""`cf-access verify`: the verification step by step, and the decision of the app."""

from dataclasses import dataclass
from typing import Literal

from fastapi_cloudflare_access._keys.jwks import JwksProblem, KeySet, parse_jwks
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.token import ParsedToken, parse
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.cli.certs import SAVE_HINT
from fastapi_cloudflare_access.cli.configuration import Configuration
from fastapi_cloudflare_access.cli.formatting import relative, short
from fastapi_cloudflare_access.cli.hints import explain_rejection
from fastapi_cloudflare_access.cli.inspection import inspect_token
from fastapi_cloudflare_access.cli.key_description import describe_keys, validity
from fastapi_cloudflare_access.cli.offline_verification import describe_caller, verify_offline
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import Caller, Key, Step, Verdict, VerifyReport
from fastapi_cloudflare_access.cli.tokens import GivenToken, describe_token
from fastapi_cloudflare_access.errors import (
    AccessError,
    CredentialError,
    InvalidSignature,
    KeysUnavailable,
    TemporarilyUnavailable,
    UnknownKey,
    WrongIssuer,
)
from fastapi_cloudflare_access.protocols import Clock

STEPS = ("token", "key", "signature", "claims")
"""Names of the steps, in order."""
UNCHECKED = Step(
    name="app",
    status="skipped",
    text="not checked: revocations, policies and the types of caller that a route admits",
)
"""The step of what only the app decides, after the verification of a token."""


@dataclass(frozen=True, slots=True)
class Certs:
    """A certs document and its source.

    Attributes:
        document: The document.
        source: The URL or file name of the document.
        origin: The kind of source: the team, a saved document, or a PEM certificate without a `kid`.
    """

    document: bytes
    source: str
    origin: Literal["team", "file", "certificate"] = "team"


async def verify_given(given: GivenToken, certs: Certs, configuration: Configuration, clock: Clock) -> VerifyReport:
    """Verify the token that an app with this configuration reads from the request."""
    try:
        token = given.for_app(configuration.settings)
    except CredentialError as error:
        verdict = explain_rejection(error, settings=configuration.settings)
        step = _failed_step("token", verdict)
        return _report(given.value, [step, *_skipped_steps([step])], verdict, None)
    return await verify_token(token, certs, configuration, clock)


async def verify_token(token: bytes, certs: Certs, configuration: Configuration, clock: Clock) -> VerifyReport:
    """Verify a token with these certs; the verdict is the decision of the app."""
    steps, failure = _run_steps(token, certs, clock.now())
    settings = configuration.settings
    if settings is None:
        verdict = _with_hint(failure or _unchecked_claims(configuration), token, certs)
        return _report(token, [*steps, *_skipped_steps(steps)], verdict, None)
    outcome = await verify_offline(token, certs.document, settings=settings, clock=clock)
    if isinstance(outcome, AccessError):
        verdict = _with_hint(_rejection(outcome, failure, token, configuration, clock.now()), token, certs)
        if failure is None:
            steps.append(_failed_step("claims", verdict))
        elif failure.reason != verdict.reason:
            steps[-1] = _without_reason(steps[-1], verdict)
        return _report(token, [*steps, *_skipped_steps(steps)], verdict, None)
    steps += [_claims_step(outcome, clock.now()), UNCHECKED]
    caller = describe_caller(outcome)
    text = f"this configuration accepts it: the {caller.kind} {caller.email or caller.id}"
    return _report(token, steps, Verdict(accepted=True, text=text), caller)


def kid_of(token: bytes) -> str:
    """Return the `kid` of a token, or a placeholder if the token is malformed."""
    try:
        return parse(token).kid
    except AccessError:
        return "none"


def _run_steps(token: bytes, certs: Certs, now: float) -> tuple[list[Step], Verdict | None]:
    """Run the steps from the token to its signature; stop at the first that fails."""
    steps: list[Step] = []
    try:
        parsed = parse(token)
        steps.append(Step(name="token", status="ok", text=f"three parts, RS256, its kid is {parsed.kid}"))
        key, described = _find_key(parsed, certs, now)
        steps.append(_key_step(described, certs, now))
        if not key.verifies(parsed.signature, parsed.signing_input):
            raise InvalidSignature(_signature_problem(parsed, described))
    except AccessError as error:
        verdict = explain_rejection(error, token=token)
        return [*steps, _failed_step(STEPS[len(steps)], verdict)], verdict
    steps.append(Step(name="signature", status="ok", text="verified with that key"))
    return steps, None


def _find_key(parsed: ParsedToken, certs: Certs, now: float) -> tuple[RS256Key, Key]:
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


def _key_step(key: Key, certs: Certs, now: float) -> Step:
    if key.certificate is None:
        text = f"{certs.source} has it under keys, without a certificate under public_certs"
        return Step(name="key", status="ok", text=text)
    valid = validity(key.certificate, now)
    if not key.certificate.same_key:
        text = f"{certs.source} has it under keys; the certificate with that kid has another key"
        return Step(name="key", status="warning", text=text, hint="fetch the certs document from the team again")
    text = "is the given certificate" if certs.origin == "certificate" else "has its certificate under public_certs"
    return Step(name="key", status="ok", text=f"{certs.source} {text}, {valid}")


def _signature_problem(parsed: ParsedToken, key: Key) -> str:
    expected = ((key.bits or 0) + 7) // 8
    if len(parsed.signature) == expected:
        return "the signature is wrong"
    return f"the signature is wrong: it has {len(parsed.signature)} bytes instead of {expected}"


def _claims_step(claims: UserClaims | ServiceClaims, now: float) -> Step:
    text = f"type, issuer, audience and times are valid; the token expires {relative(claims.exp, now)}"
    return Step(name="claims", status="ok", text=text)


def _rejection(
    error: AccessError, failure: Verdict | None, token: bytes, configuration: Configuration, now: float
) -> Verdict:
    if isinstance(error, TemporarilyUnavailable):
        return failure or explain_rejection(error)  # the failed step is more precise than missing keys
    claims = inspect_token(token, configuration, now).claims
    return explain_rejection(error, token=token, claims=claims, settings=configuration.settings, now=now)


def _with_hint(verdict: Verdict, token: bytes, certs: Certs) -> Verdict:
    """Return the verdict with a hint that matches the source of the keys."""
    hint = verdict.hint
    if verdict.reason == KeysUnavailable.reason and certs.origin == "file":
        hint = SAVE_HINT
    if verdict.reason == InvalidSignature.reason and certs.origin == "certificate":
        hint = (
            f"check that {certs.source} is the certificate of kid {short(kid_of(token))} under public_certs; "
            "if it is, the token was truncated, changed or signed by another key"
        )
    return verdict.model_copy(update={"hint": hint})


def _unchecked_claims(configuration: Configuration) -> Verdict:
    text = "the signature is valid, but the claims cannot be checked"
    return Verdict(accepted=None, text=f"{text}: {configuration.problem}")


def _failed_step(name: str, verdict: Verdict) -> Step:
    return Step(name=name, status="failed", text=verdict.text, reason=verdict.reason)


def _without_reason(step: Step, verdict: Verdict) -> Step:
    """Return the step that fails without its reason code, since the app names the claim in the verdict."""
    text = f"{step.text}; the token is of another team" if verdict.reason == WrongIssuer.reason else step.text
    return step.model_copy(update={"text": text, "reason": None})


def _skipped_steps(steps: list[Step]) -> list[Step]:
    return [Step(name=name, status="skipped", text="not checked") for name in STEPS[len(steps) :]]


def _report(token: bytes, steps: list[Step], verdict: Verdict, caller: Caller | None) -> VerifyReport:
    return VerifyReport(token=describe_token(token), steps=steps, verdict=verdict, caller=caller)


def show(report: VerifyReport, screen: Screen) -> None:
    """Print a report as text."""
    for step in report.steps:
        screen.step(step)
    screen.line()
    screen.verdict(report.verdict)
