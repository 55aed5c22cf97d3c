"""The key set at one time, and how a fetched document changes it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from fastapi_cloudflare_access._keys.jwks import KeySet
from fastapi_cloudflare_access._verification.signature import RS256Key

_NONE: Mapping[str, RS256Key] = MappingProxyType({})
_NOTHING_PENDING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The time on both clocks: the monotonic one stops while a machine sleeps, the wall clock may be set."""

    monotonic: float
    wall: float

    def until(self, now: "ClockReading") -> float:
        """Return the seconds from this reading to `now`: the larger difference of both clocks, at least 0."""
        return max(now.monotonic - self.monotonic, now.wall - self.wall, 0.0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable key set.

    Attributes:
        keys: Key by `kid`.
        generation: Number that grows whenever the keys change.
        fetched: Time of the last successful fetch; None if there was none.
        document: The certs document that it brought.
        published: The keys of that document; `keys` holds these and those in `pending_removal`.
        pending_removal: By `kid`, the monotonic time since which a key that is still used is not published.
        etag: The value for `If-None-Match`.
        sequence: Number of the fetch; a lower one never replaces a higher one.
    """

    keys: Mapping[str, RS256Key] = field(default_factory=lambda: _NONE)
    generation: int = 0
    fetched: ClockReading | None = None
    document: bytes = b""
    published: KeySet = field(default_factory=lambda: KeySet(_NONE))
    pending_removal: Mapping[str, float] = field(default_factory=lambda: _NOTHING_PENDING)
    etag: str | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """An accepted response, or a document that the app passed to `seed`, with the keys that were parsed from it.

    Attributes:
        at: Time of the end of the fetch.
        sequence: Number of the fetch.
        document: The certs document; after a 304 the previous one.
        key_set: The keys of that document.
        etag: The ETag of the document.
    """

    at: ClockReading
    sequence: int
    document: bytes
    key_set: KeySet
    etag: str | None


def merge(old: Snapshot, new: ParsedDocument, *, removal_grace: float | None, may_confirm_removals: bool) -> Snapshot:
    """Return the key set after a fetch: keys are added at once, and removed after a second fetch confirms it.

    A `kid` that appears twice with different keys is removed at once.

    Args:
        old: The previous key set.
        new: The parsed document.
        removal_grace: Seconds for which a key must have been unpublished; None removes it at once.
        may_confirm_removals: Whether this fetch may remove keys, or only mark them as pending.
    """
    published = new.key_set.keys
    pending: dict[str, float] = {}
    for kid in old.keys:
        if kid in published or kid in new.key_set.conflicting_kids or removal_grace is None:
            continue
        since = old.pending_removal.get(kid, new.at.monotonic)
        if not may_confirm_removals or new.at.monotonic - since < removal_grace:
            pending[kid] = since
    keys = {**{kid: old.keys[kid] for kid in pending}, **published}
    return replace(
        old,
        keys=MappingProxyType(keys) if keys != old.keys else old.keys,
        generation=old.generation + (keys != old.keys),
        fetched=new.at,
        document=new.document,
        published=new.key_set,
        pending_removal=MappingProxyType(pending),
        etag=new.etag,
        sequence=new.sequence,
    )


def confirmation_due(snapshot: Snapshot, removal_grace: float) -> float | None:
    """Return the monotonic time of the fetch that confirms a removal; None if no removal is pending."""
    return min(snapshot.pending_removal.values()) + removal_grace if snapshot.pending_removal else None
