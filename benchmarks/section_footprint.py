"""The time of the import, and the memory of a process."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from aims import KNOWN, UNPROTECTED
from imports import added
from material import TEAM, verifier
from serving import BEFORE, CACHED, Stage, ask

from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access.testing._issuer import base64url, compact_json

MIB = 2**20


def servers() -> dict[str, float]:
    """Measure the MiB of a server process after its first requests."""
    found = {}
    with Stage() as stage:
        for app in (UNPROTECTED, KNOWN, "fastapi-azure-auth", "PyJWT, PyJWKClient"):
            with stage.serve(app) as port:
                for _ in range(20):
                    ask(port, stage.token)
                server = next(one for one in psutil.Process().children() if _listens(one, port))
                found[app] = round(server.memory_info().rss / MIB, 1)
    return found


def _listens(process: psutil.Process, port: int) -> bool:
    return any(one.laddr.port == port for one in process.net_connections("tcp"))


def distinct(tokens: int, cache: int) -> float:
    """Return by how many MiB a process grows while it verifies so many tokens, all of them different.

    To sign a million tokens takes too long, so the RSA operation, and it alone, accepts every signature here.
    """
    ours, process = verifier(token_cache_size=cache), psutil.Process()
    signature = TEAM.user_token("ada@example.com").rpartition(".")[2]
    header = base64url(compact_json({"alg": "RS256", "kid": TEAM.current.kid}))
    claims = TEAM.user_claims("ada@example.com")

    async def verify(numbers: range) -> None:
        for number in numbers:
            payload = base64url(compact_json(claims | {"sub": f"{number:09}"}))
            await ours.verify(f"{header}.{payload}.{signature}".encode())

    with patch.object(RS256Key, "verifies", lambda *_: True):
        asyncio.run(verify(range(BEFORE)))
        before = process.memory_info().rss
        asyncio.run(verify(range(BEFORE, tokens)))
    return round((process.memory_info().rss - before) / MIB, 2)


def distinct_in_processes(tokens: int, *caches: int) -> dict[str, float]:
    """Return the same for several sizes of the cache, side by side in processes of their own."""
    code = "import section_footprint as it; print(it.distinct({}, {}))"
    commands = {cache: [sys.executable, "-c", code.format(tokens, cache)] for cache in caches}
    running = {
        cache: subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)  # noqa: S603
        for cache, command in commands.items()
    }
    return {str(cache): float(process.communicate()[0]) for cache, process in running.items()}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure this section, print it and return it."""
    tokens = 20_000 if quick else 1_000_000
    found: dict[str, Any] = {"import": added(3 if quick else 15), "server": servers(), "tokens": tokens}
    found["grown"] = distinct_in_processes(tokens, CACHED, 10_000)
    print(f"\nImport adds {found['import']} ms; memory of a server process {found['server']} MiB")
    print(f"  after {tokens} distinct tokens, by size of the token cache, MiB more: {found['grown']}")
    return found


if __name__ == "__main__":
    run()
