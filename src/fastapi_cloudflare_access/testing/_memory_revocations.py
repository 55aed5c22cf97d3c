"""Revocations without a store, for tests."""

from collections.abc import Callable, Sequence

from fastapi_cloudflare_access._revocations.record import MICROSECONDS, Record
from fastapi_cloudflare_access._revocations.source import RevocationSource
from fastapi_cloudflare_access.protocols import Clock, Listener
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.stores.memory import MemoryStore


class MemoryRevocations(RevocationSource):
    """Revocations that the test adds; they are always current, and nothing reads a store."""

    def __init__(self, settings: Settings, clock: Clock, listeners: Sequence[Listener]) -> None:
        """Begin without a revocation."""
        super().__init__(MemoryStore(), settings, clock=clock, listeners=listeners)
        self._current_until = self._next_read = float("inf")

    async def start(self) -> None:
        """Return without following a log."""

    async def stop(self) -> None:
        """Return without stopping anything."""

    async def add(self, make: Callable[[int], list[Record]]) -> None:
        """Add the records at the time of the clock."""
        if records := make(int(self._clock.now() * MICROSECONDS)):
            self.apply(records)
