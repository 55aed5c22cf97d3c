"""The file that `cf-access dev --ready-file` writes: everything that a test in any language needs."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.server import app_environment
from fastapi_cloudflare_access.local.state import write_atomically
from fastapi_cloudflare_access.local.tls import TlsFiles


def describe(local_access: LocalAccess, tls: TlsFiles | None) -> dict[str, Any]:
    """Return the addresses, tags, credentials and variables of a running local Access."""
    addresses = local_access.addresses
    return {
        "pid": os.getpid(),
        "team_domain": addresses.issuer,
        "control": f"http://127.0.0.1:{addresses.port}/control/api/",
        "apps": [
            {"name": app.name, "url": addresses.origin(app.host) + app.paths[0], "audience": app.tag}
            for app in local_access.config.apps
        ],
        "service_tokens": [
            {"name": name, "client_id": client_id, "client_secret": local_access.service_secret(client_id, name)}
            for client_id, name in local_access.services.items()
        ],
        "environment": app_environment(local_access, tls),
        "ca_file": str(tls.ca) if tls else None,
    }


@contextmanager
def ready_file(file: Path | None) -> Generator[None]:
    """Remove an old file, and remove the new one at the end.

    Raises:
        ConfigurationError: The old file cannot be removed.
    """
    if file is None:
        yield
        return
    try:
        file.unlink(missing_ok=True)
    except OSError as problem:
        raise ConfigurationError(f"{file} cannot be written: {problem.strerror}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def write_ready_file(file: Path, local_access: LocalAccess, tls: TlsFiles | None) -> None:
    """Write the file at once as a whole; only the owner can read it, because it has secrets.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    try:
        write_atomically(file, json.dumps(describe(local_access, tls), indent=1) + "\n")
    except OSError as problem:
        raise ConfigurationError(f"{file} cannot be written: {problem.strerror}") from None
