"""`FileStore`, which shares keys between the workers of one machine through files."""

import asyncio
import os
import stat
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import MAX_SNAPSHOT, Secret
from fastapi_cloudflare_access.stores._problem import TeamName
from fastapi_cloudflare_access.stores._signing import checked_secrets

_OWNER_ONLY = 0o600
_OTHERS_WRITE = 0o022


class FileStore:
    """A [`SnapshotStore`][fastapi_cloudflare_access.protocols.SnapshotStore] in a folder of one machine.

    Workers of one machine share keys through it, and a worker that restarts finds them again.
    """

    def __init__(self, folder: str | os.PathLike[str], *, secret: Secret) -> None:
        """Check the folder; no file is read or written.

        Args:
            folder: An existing folder that only the user of the workers may write, such as one with mode 700.
            secret: Secret of at least 32 bytes that signs the records, the same in every worker. A list rotates it:
                the first one signs, and records of each are accepted.

        Raises:
            ConfigurationError: The secret is too short, or the folder does not exist or can be written by others.
        """
        self.secret: Secret = checked_secrets(secret)
        self._folder = _checked_folder(folder)

    def __repr__(self) -> str:
        return f"<FileStore {self._folder}>"

    async def load(self, team: TeamName) -> bytes | None:
        """Return the first `MAX_SNAPSHOT` + 1 bytes of the snapshot of a team, or None."""
        return await asyncio.to_thread(_read, self._folder / f"{team}.snapshot")

    async def save(self, team: TeamName, snapshot: bytes) -> None:
        """Replace the snapshot of a team, in one step."""
        await asyncio.to_thread(_write, self._folder / f"{team}.snapshot", snapshot)

    @asynccontextmanager
    async def lock(self, team: TeamName, *, seconds: float) -> AsyncGenerator[bool]:  # noqa: ARG002 - the port has it
        """Lock a team; the context is False if it is locked already.

        The operating system ends the lock when the process ends. Where it has no such lock, the context is True.
        """
        with _opened_lock(self._folder / f"{team}.lock") as locked:
            yield locked


forbid_as_dependency(FileStore, "A store is not a dependency: write CloudflareAccess(snapshot_store=FileStore(…))")


def _checked_folder(folder: str | os.PathLike[str]) -> Path:
    try:
        path = Path(folder).absolute()
        found = path.stat()
    except TypeError:
        raise ConfigurationError("folder must be the path of a folder, as text or a Path") from None
    except (OSError, ValueError):
        raise ConfigurationError(f"the folder {folder} cannot be read; create it with mkdir -m 700") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{folder} is not a folder; name a folder of its own for the store")
    if os.name == "posix" and (found.st_mode & _OTHERS_WRITE or found.st_uid not in (0, os.geteuid())):
        raise ConfigurationError(f"other users may write to the folder {folder}: chown it, and chmod 700")
    return path


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # the open of a pipe would wait for its other end


def _open(path: str, flags: int) -> int:
    """Open a file that is no link; a new one is for its owner only."""
    return os.open(path, flags | _NO_LINK | _NO_WAIT, _OWNER_ONLY)


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{path.name} is not a file")
            return file.read(MAX_SNAPSHOT + 1)
    except FileNotFoundError:
        return None


def _write(path: Path, snapshot: bytes) -> None:
    """Write a file beside it and rename that, so that a reader sees the old or the new snapshot."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}")
    with open(beside, "wb", opener=_open) as file:
        file.write(snapshot)
    beside.replace(path)


@contextmanager
def _opened_lock(path: Path) -> Generator[bool]:
    with open(path, "ab", opener=_open) as file:
        yield _try_lock(file.fileno())


try:
    import fcntl
except ImportError:  # Windows

    def _try_lock(file: int) -> bool:
        del file
        return True
else:

    def _try_lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
