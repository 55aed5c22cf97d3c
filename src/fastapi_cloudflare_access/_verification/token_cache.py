"""The cache of verified tokens. It saves the signature check; key and times are checked on every hit."""

from collections import OrderedDict
from typing import Generic, NamedTuple

from typing_extensions import TypeVar

from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims

U = TypeVar("U", bound=UserClaims)


class RevocationKeys(NamedTuple):
    """The keys of a verified token under which a revocation may be found.

    Attributes:
        names: The keys, each with its kind.
        iat: Time of issue, in seconds since 1970.
    """

    names: tuple[str, ...]
    iat: int


class CacheEntry(NamedTuple, Generic[U]):
    """One verified token.

    Attributes:
        kid: The `kid` of its header.
        key: The key that verified its signature.
        starts: Time from which it is accepted, in seconds since 1970, leeway included.
        ends: Time from which it is expired, in seconds since 1970, leeway included.
        caller: The caller, if its model is frozen; else None.
        payload: The payload from which the caller is built on every hit, if its model is not frozen; else empty.
        revocation_keys: The keys under which a revocation of it is found; None if there is no store for revocations.
    """

    kid: str
    key: RS256Key
    starts: float
    ends: float
    caller: U | ServiceClaims | None
    payload: bytes
    revocation_keys: RevocationKeys | None = None


class TokenCache(Generic[U]):
    """The most recently used tokens. The cache key of a token is its SHA-256.

    Strict base64url gives every token one spelling, so equal digests mean equal tokens. Threads may share the cache; a
    race can only lose an entry.
    """

    __slots__ = ("__weakref__", "_entries", "_size")

    def __init__(self, size: int) -> None:
        """Create a cache of at most `size` tokens."""
        self._size = size
        self._entries: OrderedDict[bytes, CacheEntry[U]] = OrderedDict()

    def get(self, cache_key: bytes) -> CacheEntry[U] | None:
        """Return the entry of a token and mark it as the most recently used; None if there is none."""
        try:
            self._entries.move_to_end(cache_key)
        except KeyError:
            return None
        return self._entries.get(cache_key)

    def put(self, cache_key: bytes, entry: CacheEntry[U]) -> None:
        """Add a token; if the cache is full, remove the least recently used one."""
        self._entries[cache_key] = entry
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def expire(self, now: float) -> None:
        """Remove the tokens that have expired by `now`, in seconds since 1970."""
        for cache_key, entry in [*self._entries.items()]:
            if now >= entry.ends:
                self._entries.pop(cache_key, None)

    def drop(self, cache_key: bytes) -> None:
        """Remove a token."""
        self._entries.pop(cache_key, None)
