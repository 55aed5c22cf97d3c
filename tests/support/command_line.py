"""What a command did, and the fetches that stand in for the outside."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi_cloudflare_access._keys.http import HttpxFetch
from fastapi_cloudflare_access.protocols import Clock, Fetch, FetchResponse


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote, as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Result]
"""Calls `main`."""


def shell(command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the shell, in which `$CF` is the command line."""
    environment = os.environ | {"CF": f"{sys.executable} -m fastapi_cloudflare_access"}
    return subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False)


def over(origin: str) -> Fetch:
    """Fetch over a real socket, from a server that stands in for every team."""
    real = HttpxFetch(trust_env=False, connect_timeout=1, read_timeout=1)

    @asynccontextmanager
    async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        path = "/" + url.split("/", 3)[3]
        async with real(origin + path, headers=headers) as response:
            yield response

    return fetch


class Skewed:
    """A clock that is wrong by so many seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.monotonic, self.sleep = clock.monotonic, clock.sleep

    def now(self) -> float:
        return self._clock.now() + self._seconds
