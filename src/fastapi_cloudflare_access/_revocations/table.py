"""The revocations in memory. A lookup costs one dictionary read for each key of a caller."""

from collections.abc import Iterator
from itertools import chain
from threading import Lock

from fastapi_cloudflare_access._revocations.record import MICROSECONDS, Record
from fastapi_cloudflare_access._verification.token_cache import RevocationKeys

MAX_RECORDS = 100_000
"""Number of revocations in force of one team; a further one is an error for its sender."""
PIECE = 2000
"""Number of keys whose records are returned at once."""

_NEVER = -1


class Entry:
    """The merged records of one key.

    Attributes:
        not_before: Time at or before which refused tokens were issued, in seconds since 1970.
        blocked_until: Time until which every token is refused, in seconds since 1970.
        log_out: The latest log-out, or None.
        blocks: The blocks that are not covered by another one, oldest first.
        unblock: The latest `unblock`, or None.
        ends_at: Time from which no record has an effect any more, in seconds since 1970.
        stream: The digest by which open streams of a token find the entry; else empty.
    """

    __slots__ = ("blocked_until", "blocks", "ends_at", "log_out", "not_before", "stream", "unblock")

    def __init__(self) -> None:
        """Begin without a record."""
        self.not_before = self.blocked_until = self.ends_at = _NEVER
        self.stream = ""
        self.log_out: Record | None = None
        self.blocks: tuple[Record, ...] = ()
        self.unblock: Record | None = None

    def __len__(self) -> int:
        return len(self.blocks) + (self.log_out is not None) + (self.unblock is not None)

    def records(self) -> Iterator[Record]:
        """Return the records that have an effect, or could have one on a record that is still to come."""
        return (each for each in (self.log_out, self.unblock, *self.blocks) if each is not None)

    def would_change(self, record: Record) -> bool:
        """Check whether a record says anything that the others do not."""
        if record.action != "block":
            known = self.log_out if record.action == "log_out" else self.unblock
            return known is None or record.at > known.at
        if self.unblock is not None and record.at < self.unblock.at:
            return False
        return not any(_covers(block, record) for block in self.blocks)

    def would_grow(self, record: Record) -> bool:
        """Check whether a log-out or a block would be one record more, instead of one in the place of others."""
        if not self.would_change(record):
            return False
        if record.action == "block":
            return not any(_covers(record, block) for block in self.blocks)
        return self.log_out is None

    def merge(self, record: Record) -> None:
        """Add a record that would change the entry."""
        self.ends_at = max(self.ends_at, record.ends_at)
        self.stream = record.stream or self.stream
        if record.action == "log_out":
            self.log_out = record
            self.not_before = record.at // MICROSECONDS
            return
        blocks = self.blocks
        if record.action == "unblock":
            self.unblock = record
            blocks = tuple(block for block in blocks if block.at >= record.at)
        else:
            blocks = (*(block for block in blocks if not _covers(record, block)), record)
        self.blocks = blocks
        self.blocked_until = max((block.until for block in blocks), default=_NEVER)


def _covers(one: Record, other: Record) -> bool:
    """Check whether one block makes another one superfluous, whatever `unblock` is still to come."""
    return one.at >= other.at and one.until >= other.until


class Table:
    """The merged revocations of a team. Threads may share it: reads need no lock."""

    __slots__ = ("_entries", "_lock", "_size", "_streams")

    def __init__(self) -> None:
        """Create an empty table."""
        self._entries: dict[str, Entry] = {}
        self._streams: dict[str, Entry] = {}
        self._size = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return self._size

    def reset_after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = Lock()

    def refuses(self, keys: RevocationKeys, now: float) -> bool:
        """Check whether a token is revoked at `now`, in seconds since 1970."""
        entries = self._entries
        if not entries:
            return False
        names, iat = keys
        for name in names:
            entry = entries.get(name)
            if entry is not None and (iat <= entry.not_before or now < entry.blocked_until):
                return True
        return False

    @property
    def has_tokens(self) -> bool:
        """Whether single tokens are revoked."""
        return bool(self._streams)

    def refuses_stream(self, stream: str, now: float) -> bool:
        """Check whether a token with this caller and these times is revoked."""
        entry = self._streams.get(stream)
        return entry is not None and now < entry.blocked_until

    def would_change(self, record: Record) -> bool:
        """Check whether a record says anything that the table does not have."""
        entry = self._entries.get(record.name)
        return entry is None or entry.would_change(record)

    def can_add(self, record: Record) -> bool:
        """Check whether a record may be added; one that replaces others, or unblocks a known key, always fits."""
        if self._size < MAX_RECORDS:
            return True
        entry = self._entries.get(record.name)
        return entry is not None and (record.action == "unblock" or not entry.would_grow(record))

    def add(self, record: Record, now: float) -> bool:
        """Merge a record; return whether the table has changed."""
        if record.ends_at <= now:
            return False
        with self._lock:
            entry = self._entries.get(record.name) or Entry()
            if not entry.would_change(record):
                return False
            before = len(entry)
            entry.merge(record)
            self._size += len(entry) - before
            self._entries[record.name] = entry
            if record.stream:
                self._streams[record.stream] = entry
        return True

    def pieces(self) -> Iterator[list[Record]]:
        """Return the records in pieces, so that the caller need not block an event loop for as long as all take."""
        entries = [*self._entries.values()]
        for start in range(0, len(entries), PIECE):
            yield [*chain.from_iterable(entry.records() for entry in entries[start : start + PIECE])]

    def records(self) -> list[Record]:
        """Return the records, in no order."""
        return [*chain.from_iterable(self.pieces())]

    def expire(self, now: float) -> None:
        """Remove the keys whose records have no effect any more at `now`, in seconds since 1970."""
        with self._lock:
            for name, entry in [*self._entries.items()]:
                if entry.ends_at <= now:
                    self._size -= len(entry)
                    self._streams.pop(entry.stream, None)
                    del self._entries[name]
