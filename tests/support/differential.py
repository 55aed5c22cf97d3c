"""Four verifications of the same tokens over the same certs: this package, and the three that Cloudflare documents."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import jwt
from jwt.algorithms import RSAAlgorithm
from support import go, npm

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.testing import CertsServer

SCRIPTS = Path(__file__).parents[1] / "differential"
PATIENCE = 60
"""Seconds that running the JavaScript or the Go may take."""

Verdicts = dict[str, str]
"""By the name of a token: `accepted`, or why not."""


def ours(certs: CertsServer, tokens: dict[str, str], *, exp_leeway: float = 0, nbf_leeway: float = 0) -> Verdicts:
    """This package, by default without leeway, as the others."""
    access = CloudflareAccess(
        team_domain=certs.origin, audience=certs.team.audience, exp_leeway=exp_leeway, nbf_leeway=nbf_leeway
    )

    async def verdict(token: str) -> str:
        try:
            await access._authenticator.verifier.verify(token.encode())
        except AccessError as refused:
            return refused.reason
        return "accepted"

    async def verdicts() -> Verdicts:
        async with access:
            return {name: await verdict(token) for name, token in tokens.items()}

    return asyncio.run(verdicts())


def pyjwt(certs: CertsServer, tokens: dict[str, str]) -> Verdicts:
    """The documented Python: each published key is tried, whatever the token says of its key."""
    document = httpx.get(f"{certs.origin}/cdn-cgi/access/certs", trust_env=False).json()
    keys: list[Any] = [RSAAlgorithm.from_jwk(json.dumps(key)) for key in document["keys"]]

    def verdict(token: str) -> str:
        why = ""
        for key in keys:
            try:
                jwt.decode(token, key=key, audience=certs.team.audience, algorithms=["RS256"])
            except Exception as error:  # noqa: BLE001 - as documented
                why = type(error).__name__
            else:
                return "accepted"
        return why

    return {name: verdict(token) for name, token in tokens.items()}


def jose(certs: CertsServer, tokens: dict[str, str], node_modules: Path) -> Verdicts:
    """The documented JavaScript, by Node."""
    return _ask([str(shutil.which("node")), str(node_modules / "verify.mjs")], certs, tokens)


def go_oidc(certs: CertsServer, tokens: dict[str, str], program: Path) -> Verdicts:
    """The documented Go, with version 2 of the library, which Debian has, instead of 3."""
    return _ask([str(program)], certs, tokens)


def _ask(command: list[str], certs: CertsServer, tokens: dict[str, str]) -> Verdicts:
    task = {"teamDomain": certs.origin, "audience": certs.team.audience, "tokens": list(tokens.values())}
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, timeout=PATIENCE, check=True)
    return dict(zip(tokens, json.loads(done.stdout), strict=True))


def install_jose(cache: Path) -> Path | str:
    """Give the folder of the JavaScript with what it imports, or why there is none."""
    folder = npm.install("jose@6", cache)
    if isinstance(folder, Path):
        shutil.copy(SCRIPTS / "verify.mjs", folder)
    return folder


def build_go(cache: Path) -> Path | str:
    """Return the Go program, or why there is none."""
    return go.build(SCRIPTS / "verify.go", cache)
