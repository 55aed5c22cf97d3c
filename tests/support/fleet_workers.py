"""Worker processes that start together: `python -m support.fleet_workers STORE_URL SECRET WORKERS`.

Each one writes the health of its keys as a line of JSON. Their clock runs slowly, so that a limit of a second does not
depend on how busy the machine is.
"""

import asyncio
import os
import sys
import time

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.stores.redis import RedisStore

SLOWNESS = 20.0
"""Seconds of the machine that one second of a worker takes."""


class SlowClock:
    """A clock on which time limits are generous."""

    now = staticmethod(time.time)

    def monotonic(self) -> float:
        return time.monotonic() / SLOWNESS

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * SLOWNESS)


async def _health(access: CloudflareAccess) -> bytes:
    async with access:
        await asyncio.gather(*access.keys._fetcher.current_loop_state().background_tasks)
        return access.keys.health().model_dump_json().encode()


def main(url: str, secret: str, workers: str) -> None:
    """Fork the workers, and wait for them."""
    store = RedisStore(f"{url}?socket_timeout=20&socket_connect_timeout=20", secret=secret)
    access = CloudflareAccess(snapshot_store=store, clock=SlowClock())
    children: list[int] = []
    for _ in range(int(workers)):
        if child := os.fork():
            children.append(child)
        else:
            os.write(1, asyncio.run(_health(access)) + b"\n")
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
