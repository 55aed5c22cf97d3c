"""Signed snapshots of keys, as workers exchange them through a store: format, signature, team and age. Pure."""

import re
from dataclasses import dataclass
from json import dumps
from typing import Any

from fastapi_cloudflare_access._keys.document import MAX_DOCUMENT
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access.stores._signing import SignatureProblem, Signer

MAX_AHEAD = 60.0
"""Seconds by which the clock of the worker that fetched the keys may be ahead."""

_MAX_HEAD = 1024
_NOT_IN_NAMES = re.compile(r"[^a-z0-9.]")


class SnapshotProblem(ValueError):
    """The snapshot cannot be used; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class SharedSnapshot:
    """A certs document that a worker of the fleet fetched.

    Attributes:
        fetched_at: Time of the fetch, in seconds since 1970.
        document: The certs document.
    """

    fetched_at: float
    document: bytes


class SnapshotFormat:
    """Signs and reads the snapshots of one team."""

    def __init__(self, signer: Signer, issuer: str) -> None:
        """Store the signer and the issuer that each snapshot must name."""
        self._signer = signer
        self._issuer = issuer

    def sign(self, snapshot: SharedSnapshot) -> bytes:
        """Return the signed record of a snapshot."""
        head = dumps({"issuer": self._issuer, "fetched_at": snapshot.fetched_at})
        return self._signer.sign(head.encode() + b"\n" + snapshot.document)

    def read(self, record: bytes, *, now: float) -> SharedSnapshot:
        """Return the snapshot of a record.

        Args:
            record: What the store returned.
            now: The time, in seconds since 1970.

        Raises:
            SnapshotProblem: It is not signed, of another team, or from the future.
        """
        try:
            payload = self._signer.verify(record, limit=_MAX_HEAD + MAX_DOCUMENT)
        except SignatureProblem as problem:
            raise SnapshotProblem(str(problem)) from None
        head, _, document = payload.partition(b"\n")
        issuer, fetched_at = _read_head(head)
        if issuer != self._issuer:
            raise SnapshotProblem("it is of another team")
        if fetched_at > now + MAX_AHEAD:
            raise SnapshotProblem("it is from the future; do the clocks of the workers differ?")
        return SharedSnapshot(fetched_at, document)


def _read_head(head: bytes) -> tuple[Any, float]:
    try:
        fields = parse_json_object(head[:_MAX_HEAD])
    except EncodingProblem:
        raise SnapshotProblem("its format is unknown") from None
    fetched_at: Any = fields.get("fetched_at")
    if type(fetched_at) not in (int, float) or fetched_at < 0:
        raise SnapshotProblem("its format is unknown")
    return fields.get("issuer"), float(fetched_at)


def team_name(issuer: str) -> str:
    """Return the name of a team in a store, which also fits a file name and a key of Redis."""
    return _NOT_IN_NAMES.sub("-", issuer.partition("://")[2])
