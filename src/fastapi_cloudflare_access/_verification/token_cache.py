"""Tokens whose signature was found good, kept so that it need not be computed again; nothing else is skipped."""

from collections import OrderedDict
from typing import Generic, NamedTuple

from typing_extensions import TypeVar

from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims

U = TypeVar("U", bound=UserClaims)


class CacheEntry(NamedTuple, Generic[U]):
    """What is known of one verified token.

    Attributes:
        kid: The key id its header names.
        key: The key that its signature was checked with.
        starts: From when it is accepted, leeway included.
        ends: Until when.
        caller: The caller, if its model is frozen; else None.
        payload: What to make the caller from, where it has to be made anew each time; else empty.
    """

    kid: str
    key: RS256Key
    starts: float
    ends: float
    caller: U | ServiceClaims | None
    payload: bytes


class TokenCache(Generic[U]):
    """The tokens used last, each under its SHA-256.

    Strict base64url gives every token one spelling, so that the digest stands for what it says. Threads may share the
    cache: the most that a race does is to forget a token.
    """

    __slots__ = ("__weakref__", "_entries", "_size")

    def __init__(self, size: int) -> None:
        """Create a cache of at most `size` tokens."""
        self._size = size
        self._entries: OrderedDict[bytes, CacheEntry[U]] = OrderedDict()

    def get(self, digest: bytes) -> CacheEntry[U] | None:
        """Return the entry of a token and mark it as used last; None if there is none."""
        try:
            self._entries.move_to_end(digest)
        except KeyError:
            return None
        return self._entries.get(digest)

    def put(self, digest: bytes, entry: CacheEntry[U]) -> None:
        """Add a token; if the cache is full, remove the one used longest ago."""
        self._entries[digest] = entry
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def expire(self, now: float) -> None:
        """Remove the tokens that have expired by `now`, in seconds since 1970."""
        for digest, entry in [*self._entries.items()]:
            if now >= entry.ends:
                self._entries.pop(digest, None)

    def drop(self, digest: bytes) -> None:
        """Remove a token."""
        self._entries.pop(digest, None)
