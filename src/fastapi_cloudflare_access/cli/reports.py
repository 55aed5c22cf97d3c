"""What the commands tell: the models behind both the screen and `--json`."""

from enum import IntEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["ok", "warning", "failed", "skipped"]
Role = Literal["current", "previous"] | None
Kind = Literal["user", "service", "org", "meta", "match", "unknown"]


class ExitCode(IntEnum):
    """What the exit code of a command says."""

    GOOD = 0
    BAD = 1
    ASKED_WRONGLY = 2
    CANNOT_TELL = 3
    INTERRUPTED = 130
    NOT_READ = 141


class CommandError(Exception):
    """A command cannot do its work; the message is one sentence that says what to do."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.ASKED_WRONGLY) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Report(BaseModel):
    """The base of all that is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Step(Report):
    """One thing that was looked at."""

    name: str
    """Which one; stable."""
    status: Status
    """How it went."""
    text: str
    """What was found."""
    hint: str | None = None
    """What to do about it."""
    reason: str | None = None
    """The reason code, where an app would refuse the token."""


class Verdict(Report):
    """What an app with this configuration says to the token."""

    accepted: bool | None
    """None where nobody can tell."""
    reason: str | None = None
    """The reason code of a refusal."""
    text: str
    """The same in words."""
    hint: str | None = None
    """What to do about it."""


class Certificate(Report):
    """A certificate as it stands under `public_certs`."""

    valid_from: str
    """ISO 8601, UTC."""
    valid_to: str
    """ISO 8601, UTC."""
    age: int
    """In seconds, since `valid_from`."""
    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal."""
    same_key: bool
    """Whether it is of the key of the same `kid`."""


class Key(Report):
    """An entry of the certs document."""

    kid: str | None
    """None where it has none that can be used."""
    role: Role
    """The current one is that under `public_cert`."""
    bits: int | None
    """The size of the modulus."""
    usable: bool
    """Whether tokens are verified with it."""
    problem: str | None
    """Why not."""
    fingerprint: str | None
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER), in hexadecimal."""
    certificate: Certificate | None


class TokenFacts(Report):
    """What may be said about a token without showing it."""

    digest: str
    """The first 12 digits of its SHA-256, as the app logs it."""
    length: int
    """In bytes."""


class Caller(Report):
    """Who a verified token stands for."""

    kind: Literal["user", "service"]
    id: str
    """The `sub` of a user, the `common_name` of a service."""
    email: str | None


class Times(Report):
    """The times of a token; ISO 8601, UTC."""

    issued: str | None
    not_before: str | None
    expires: str | None


class DoctorReport(Report):
    """What `doctor` tells."""

    command: Literal["doctor"] = "doctor"
    ok: bool
    """Whether no step failed."""
    steps: list[Step]
    keys: list[Key]


class InspectReport(Report):
    """What `inspect` tells."""

    command: Literal["inspect"] = "inspect"
    verified: Literal[False] = False
    """Nothing is verified."""
    token: TokenFacts
    kind: Kind
    header: dict[str, Any] | None
    """None where it cannot be decoded."""
    claims: dict[str, Any] | None
    """None where they cannot be decoded."""
    times: Times
    verdict: Verdict


class VerifyReport(Report):
    """What `verify` tells."""

    command: Literal["verify"] = "verify"
    token: TokenFacts
    steps: list[Step]
    verdict: Verdict
    caller: Caller | None


class KeysReport(Report):
    """What `keys` tells; with `--watch` once for each change."""

    command: Literal["keys"] = "keys"
    source: str
    """Where the certs document was read."""
    read_at: str
    """When; ISO 8601, UTC."""
    keys: list[Key]
    added: list[str]
    """Each `kid` that was not there before, with `--watch`."""
    removed: list[str]
    """Each `kid` that is gone, with `--watch`."""


class Failure(Report):
    """What any command tells where it cannot do its work."""

    command: str | None
    error: str
    exit_code: int


AnyReport = DoctorReport | InspectReport | VerifyReport | KeysReport | Failure
"""Whatever `--json` writes."""
