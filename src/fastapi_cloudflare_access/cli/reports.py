"""The reports of the commands: models for both the text output and `--json`."""

from enum import IntEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["ok", "warning", "failed", "skipped"]
Role = Literal["current", "previous"] | None
Kind = Literal["user", "service", "org", "meta", "match", "saas", "unknown"]


class ExitCode(IntEnum):
    """Exit code of a command."""

    SUCCESS = 0
    FAILURE = 1
    USAGE_ERROR = 2
    INCONCLUSIVE = 3
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CommandError(Exception):
    """Failure of a command; the message is one sentence with a hint."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.USAGE_ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Report(BaseModel):
    """Base of all reports."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Step(Report):
    """One check and its result."""

    name: str
    """Stable name of the check."""
    status: Status
    """Result of the check."""
    text: str
    """Result in words."""
    hint: str | None = None
    """Next action for the operator."""
    reason: str | None = None
    """Reason code, if an app rejects the token."""


class Verdict(Report):
    """Decision of an app with this configuration about the token."""

    accepted: bool | None
    """Whether the app accepts the token; None if inconclusive."""
    reason: str | None = None
    """Reason code of a rejection."""
    text: str
    """Decision in words."""
    hint: str | None = None
    """Next action for the operator."""


class Certificate(Report):
    """A certificate under `public_certs`."""

    valid_from: str
    """Start of validity, ISO 8601 in UTC."""
    valid_to: str
    """End of validity, ISO 8601 in UTC."""
    age: int
    """Seconds since `valid_from`."""
    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal."""
    same_key: bool
    """Whether its public key is the key with the same `kid`."""


class Key(Report):
    """An entry of the certs document."""

    kid: str | None
    """Key id, or None if it is missing or not valid."""
    role: Role
    """Role of the key; the current key is the one under `public_cert`."""
    bits: int | None
    """Size of the modulus in bits."""
    usable: bool
    """Whether the key verifies tokens."""
    problem: str | None
    """Reason why the key is not usable."""
    fingerprint: str | None
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER), in hexadecimal."""
    certificate: Certificate | None


class TokenFacts(Report):
    """Digest and length of a token, which do not reveal it."""

    digest: str
    """First 12 hexadecimal digits of its SHA-256, as the app logs them."""
    length: int
    """Length in bytes."""


class Caller(Report):
    """The caller of a verified token."""

    kind: Literal["user", "service"]
    id: str
    """The `sub` of a user, or the `common_name` of a service."""
    email: str | None


class Times(Report):
    """The times of a token, ISO 8601 in UTC."""

    issued: str | None
    not_before: str | None
    expires: str | None


class DoctorReport(Report):
    """Output of `doctor`."""

    command: Literal["doctor"] = "doctor"
    ok: bool
    """Whether no step failed."""
    steps: list[Step]
    keys: list[Key]


class InspectReport(Report):
    """Output of `inspect`."""

    command: Literal["inspect"] = "inspect"
    verified: Literal[False] = False
    """Always false."""
    token: TokenFacts
    kind: Kind
    header: dict[str, Any] | None
    """The JOSE header, or None if it cannot be decoded."""
    claims: dict[str, Any] | None
    """The claims, or None if they cannot be decoded."""
    times: Times
    verdict: Verdict


class VerifyReport(Report):
    """Output of `verify`."""

    command: Literal["verify"] = "verify"
    token: TokenFacts
    steps: list[Step]
    verdict: Verdict
    caller: Caller | None


class KeysReport(Report):
    """Output of `keys`; with `--watch` one report for each change."""

    command: Literal["keys"] = "keys"
    source: str
    """URL or file name of the certs document."""
    read_at: str
    """Time of the read, ISO 8601 in UTC."""
    keys: list[Key]
    added: list[str]
    """Each `kid` that is new since the last report, with `--watch`."""
    removed: list[str]
    """Each `kid` that was removed since the last report, with `--watch`."""


class RouteNote(Report):
    """A remark on a protected route, which is no failure."""

    what: str
    hint: str
    """Change that mends it."""


class Route(Report):
    """A route of the app, with the callers that it admits."""

    path: str
    """Path in the whole app; `/*` at its end means every path below."""
    methods: list[str]
    """HTTP methods; `WS` for a WebSocket, `ANY` for all of them."""
    kind: Literal["route", "websocket", "starlette", "docs", "mount", "frontend", "fallback", "exempt"]
    """Kind of the route; `exempt` is a path that a guard exempts and another route serves."""
    open: bool
    """Whether it admits clients without a token."""
    listed: bool
    """Whether `--open` lists it."""
    reached: bool
    """Whether requests reach it; an earlier route may serve its path."""
    who: str
    """Callers that it admits, in words."""
    callers: list[Literal["users", "services"]]
    """Kinds of callers that it admits, if it is not open."""
    policies: list[str]
    """Policies that must admit the caller."""
    by: list[str]
    """Dependencies and guards that decide; `middleware` for another middleware that asks the object."""
    why: str | None
    """Reason why it is open, or why no request reaches it."""
    hint: str | None
    """Change that protects it."""
    notes: list[RouteNote]
    """Remarks on a protected route: for example, pages of any origin may open a WebSocket."""


class RoutesReport(Report):
    """Output of `routes`."""

    command: Literal["routes"] = "routes"
    ok: bool
    """Whether every open route is listed, and no declaration is wrong."""
    routes: list[Route]
    problems: list[str]
    """Wrong declarations, and listed paths that are not served."""


class RevokeReport(Report):
    """Output of `revoke`."""

    command: Literal["revoke"] = "revoke"
    action: Literal["log_out", "block", "unblock", "revoke"]
    """Kind of the record that was added to the store."""


class RevocationEntry(Report):
    """A revocation in force."""

    action: Literal["log_out", "block"]
    by: Literal["sub", "email", "client_id", "token"]
    """Kind of the key."""
    key: str
    """The `sub` or the Client ID; for an address a keyed digest, for a token its SHA-256."""
    added_at: str
    """Time of the store, ISO 8601 in UTC."""
    until: str | None
    """End of a block, ISO 8601 in UTC."""


class RevocationsReport(Report):
    """Output of `revocations`."""

    command: Literal["revocations"] = "revocations"
    revocations: list[RevocationEntry]
    """The latest first."""
    ignored: int
    """Number of records of the store that are not signed by this team."""


class Failure(Report):
    """Output of a command that fails."""

    command: str | None
    error: str
    exit_code: int


AnyReport = (
    DoctorReport | InspectReport | VerifyReport | KeysReport | RoutesReport | RevokeReport | RevocationsReport | Failure
)
"""All outputs of `--json`."""
