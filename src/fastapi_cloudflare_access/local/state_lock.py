"""A lock on a state folder, so that two local Accesses do not overwrite each other's file."""

import os
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.state import create_folder

LOCK_FILE = "lock"


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the lock of a state folder, which the operating system releases if the process dies.

    Raises:
        ConfigurationError: Another process holds it, or the folder cannot be written.
    """
    try:
        create_folder(folder)
        file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise ConfigurationError(f"{folder} cannot be written: {problem.strerror}") from None
    try:
        with _exclusive(file, folder):
            yield
    finally:
        os.close(file)


@contextmanager
def _exclusive(file: int, folder: Path) -> Generator[None]:
    try:
        _lock(file)
    except OSError:
        owner = os.read(file, 20).decode("ascii", "replace").strip()
        raise ConfigurationError(
            f"another local Access uses {folder}{f' (process {owner})' if owner.isdigit() else ''}; "
            "stop it, or name another folder with --state"
        ) from None
    os.ftruncate(file, 0)
    os.write(file, f"{os.getpid()}\n".encode())
    try:
        yield
    finally:
        with suppress(OSError):
            os.ftruncate(file, 0)


def optional_lock(folder: Path | None) -> Any:
    """Return the lock of a folder, or an empty context without one."""
    return nullcontext() if folder is None else locked(folder)


try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    import msvcrt

    def _lock(file: int) -> None:
        # A byte beyond the content, because Windows forbids reading a locked one.
        os.lseek(file, 1 << 20, os.SEEK_SET)
        try:
            getattr(msvcrt, "locking")(file, getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009 - only typed on Windows
        finally:
            os.lseek(file, 0, os.SEEK_SET)
else:

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
