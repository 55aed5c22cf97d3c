"""A clock that runs several times as fast as the clocks of the machine, the same in each process."""

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from fastapi_cloudflare_access.stores._redis import revocations
from fastapi_cloudflare_access.stores.redis import RedisStore

_NAMES = ("LONG_RUN_FACTOR", "LONG_RUN_WALL", "LONG_RUN_MONOTONIC")
_HEARTBEAT = 1.0


@dataclass(frozen=True)
class ScaledClock:
    """A `Clock` that began at the machine's time, and is `factor` times as fast.

    Attributes:
        factor: Seconds of this clock in a second of the machine.
        wall: Wall time at which it began, in seconds since 1970.
        began: The machine's monotonic time at that moment; processes of one machine share it.
    """

    factor: float
    wall: float
    began: float

    @classmethod
    def start(cls, factor: float) -> "ScaledClock":
        """Return a clock that begins now."""
        return cls(factor, time.time(), time.monotonic())

    @classmethod
    def of_environment(cls) -> "ScaledClock":
        """Return the clock that another process began."""
        return cls(*(float(os.environ[name]) for name in _NAMES))

    @property
    def environment(self) -> dict[str, str]:
        """The variables from which another process reads this clock."""
        return dict(zip(_NAMES, map(repr, (self.factor, self.wall, self.began)), strict=True))

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return (time.monotonic() - self.began) * self.factor

    def now(self) -> float:
        """Return the wall time in seconds since 1970."""
        return self.wall + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds of this clock."""
        await asyncio.sleep(seconds / self.factor)


class ScaledStore(RedisStore):
    """A `RedisStore` whose server seems to have the scaled clock.

    The server's pause before it answers that there is no record is shortened, since `MAX_SILENCE` is scaled too.
    """

    def __init__(self, url: str, *, clock: ScaledClock, **options: Any) -> None:
        """Create a store like `RedisStore`."""
        super().__init__(url, **options)
        self._clock = clock
        revocations.HEARTBEAT = max(0.002, min(revocations.HEARTBEAT, _HEARTBEAT / clock.factor))

    async def time(self) -> float:
        """Ask the server, and return the time of the scaled clock."""
        await super().time()
        return self._clock.now()
