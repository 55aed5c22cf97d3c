"""One record of a revocation, and its form in a store."""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access.claims import MAX_TIME

MAX_RECORD = 4096
"""Number of bytes that a record of a revocation has at most, without its signature."""
MAX_NAME = 256
"""Number of characters that the `sub` or the Client ID of a revocation may have."""
DAY = 86_400
LONGEST_SESSION = 31 * DAY
"""Seconds of the longest session at Cloudflare, a month; no block is longer."""
RECORD_LIFETIME = LONGEST_SESSION + 3600
"""Seconds for which a revocation is kept: the longest session, and an hour for leeway and for clocks that differ."""
MICROSECONDS = 1_000_000

Action: TypeAlias = Literal["log_out", "block", "unblock"]
"""The effect of a record: `log_out`, `block` or `unblock`."""
Kind: TypeAlias = Literal["sub", "email", "client_id", "token"]
"""The kind of the key of a record."""

_ACTIONS: Final = frozenset(get_args(Action))
_KINDS: Final = frozenset(get_args(Kind))


class RecordProblem(ValueError):
    """The record is not usable; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class Record:
    """A revocation.

    Attributes:
        action: `log_out`, `block` or `unblock`.
        kind: `sub`, `email`, `client_id` or `token`.
        key: The `sub` or the Client ID; for an address a keyed digest, for a token its SHA-256, in hexadecimal.
        at: Time of the store when it was added, in microseconds since 1970.
        until: End of a block, in seconds since 1970; else 0.
        stream: For a token the digest of its caller and times, by which open streams find it; else empty.
    """

    action: Action
    kind: Kind
    key: str
    at: int
    until: int = 0
    stream: str = ""

    @property
    def name(self) -> str:
        """The key with its kind, as the table has it."""
        return f"{self.kind}:{self.key}"

    @property
    def ends_at(self) -> int:
        """The time from which the record has no effect any more, in seconds since 1970."""
        return self.until if self.action == "block" else self.at // MICROSECONDS + RECORD_LIFETIME


@dataclass(frozen=True, slots=True)
class Completion:
    """The statement of a worker that the log has every revocation that this worker knew.

    Attributes:
        epoch: The state of the store for which it holds; it differs after a restart or a fail-over.
        at: Time of the store, in microseconds since 1970.
    """

    epoch: str
    at: int


def encode(record: Record | Completion, *, issuer: str) -> bytes:
    """Return the payload of a record, to be signed."""
    members: dict[str, object] = {"iss": issuer, "at": record.at}
    if isinstance(record, Completion):
        members |= {"do": "complete", "epoch": record.epoch}
    else:
        members |= {"do": record.action, "by": record.kind, "key": record.key}
        members |= {"until": record.until} if record.until else {}
        members |= {"stream": record.stream} if record.stream else {}
    return json.dumps(members, separators=(",", ":"), sort_keys=True).encode()


def decode(payload: bytes, *, issuers: frozenset[str]) -> Record | Completion:
    """Return the record of a payload whose signature has been verified.

    Args:
        payload: The payload.
        issuers: The names of the team.

    Raises:
        RecordProblem: The record is of another team, or is not one that this version knows.
    """
    try:
        members = parse_json_object(payload)
    except EncodingProblem as problem:
        raise RecordProblem(f"it is {problem}") from None
    issuer = members.pop("iss", None)
    if type(issuer) is not str or issuer not in issuers:
        raise RecordProblem("it is of another team")
    at = members.pop("at", None)
    if type(at) is not int or not 0 < at <= MAX_TIME * MICROSECONDS:
        raise RecordProblem("its time is out of range")
    action = members.pop("do", None)
    return _completion(members, at) if action == "complete" else _revocation(members, action, at)


def _completion(members: dict[str, Any], at: int) -> Completion:
    epoch = members.pop("epoch", None)
    if type(epoch) is not str or members:
        raise RecordProblem("its form is not known")
    return Completion(epoch, at)


def _revocation(members: dict[str, Any], action: Any, at: int) -> Record:
    kind, key = members.pop("by", None), members.pop("key", None)
    until, stream = members.pop("until", 0), members.pop("stream", "")
    texts = (action, kind, key, stream)
    if members or not all(type(text) is str for text in texts):
        raise RecordProblem("its form is not known")
    if action not in _ACTIONS or kind not in _KINDS or not key:
        raise RecordProblem("its form is not known")
    if type(until) is not int or not 0 <= until <= MAX_TIME or (action == "block") != (until > 0):
        raise RecordProblem("its end is out of range")
    if until and until - at // MICROSECONDS > RECORD_LIFETIME:
        raise RecordProblem("its end is out of range")
    return Record(action, kind, key, at, until, stream)
