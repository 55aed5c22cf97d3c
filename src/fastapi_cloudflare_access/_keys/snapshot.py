"""The keys as they are at one moment, and how a fetched document changes them; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from fastapi_cloudflare_access._keys.jwks import KeySet
from fastapi_cloudflare_access._verification.signature import RS256Key

_NONE: Mapping[str, RS256Key] = MappingProxyType({})
_NOTHING_MISSING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on both clocks: the monotonic one stands still while a machine sleeps, the wall clock may be set."""

    monotonic: float
    wall: float

    def until(self, now: "Moment") -> float:
        """Seconds from here to `now`, by the clock on which more have passed."""
        return max(now.monotonic - self.monotonic, now.wall - self.wall, 0.0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a lookup needs, never changed once it is there.

    Attributes:
        keys: Key by `kid`.
        generation: Grows whenever the keys change.
        fetched: When the last good fetch ended; None where there was none.
        document: What it brought.
        listed: The key set of that document; the keys are these and the missing ones.
        missing: Since when (monotonic) a key that is still used has not been published.
        etag: What to ask with next time.
        sequence: The number of the fetch; a lower one never replaces a higher one.
    """

    keys: Mapping[str, RS256Key] = field(default_factory=lambda: _NONE)
    generation: int = 0
    fetched: Moment | None = None
    document: bytes = b""
    listed: KeySet = field(default_factory=lambda: KeySet(_NONE))
    missing: Mapping[str, float] = field(default_factory=lambda: _NOTHING_MISSING)
    etag: str | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a good fetch brought, parsed.

    Attributes:
        at: When it ended.
        sequence: Its number.
        document: The bytes; those of before for a 304.
        key_set: The keys.
        etag: Of the document.
    """

    at: Moment
    sequence: int
    document: bytes
    key_set: KeySet
    etag: str | None


def merge(old: Snapshot, new: Fetched, *, removal_delay: float | None, may_finish: bool) -> Snapshot:
    """Put a fetched set in the place of the old one: additions at once, removals once they are confirmed.

    Args:
        old: The keys so far.
        new: The fetched ones.
        removal_delay: How long a key must have been missing when it goes; None lets it go at once.
        may_finish: Whether this fetch may confirm a removal, or only notice that a key is missing.
    """
    published = new.key_set.keys
    missing: dict[str, float] = {}
    for kid in old.keys:
        if kid in published or kid in new.key_set.torn or removal_delay is None:
            continue
        since = old.missing.get(kid, new.at.monotonic)
        if not may_finish or new.at.monotonic - since < removal_delay:
            missing[kid] = since
    keys = {**{kid: old.keys[kid] for kid in missing}, **published}
    return replace(
        old,
        keys=MappingProxyType(keys) if keys != old.keys else old.keys,
        generation=old.generation + (keys != old.keys),
        fetched=new.at,
        document=new.document,
        listed=new.key_set,
        missing=MappingProxyType(missing),
        etag=new.etag,
        sequence=new.sequence,
    )


def confirmation_due(snapshot: Snapshot, removal_delay: float) -> float | None:
    """When (monotonic) the fetch is due that confirms a removal; None where no key is missing."""
    return min(snapshot.missing.values()) + removal_delay if snapshot.missing else None
