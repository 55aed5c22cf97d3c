"""The store in a folder: whole files, for the owner alone."""

import asyncio
import os
import stat
import sys
import threading
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import pytest
from support.store_locks import check_lock

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import MAX_SNAPSHOT
from fastapi_cloudflare_access.stores import file as module
from fastapi_cloudflare_access.stores.file import FileStore

pytestmark = pytest.mark.anyio

SECRET = "a secret of the tests, long enough"
TEAM = "acme.cloudflareaccess.com"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.mkdir(mode=0o700)
    return path


async def test_a_snapshot_is_kept_for_each_team(folder: Path) -> None:
    store = FileStore(folder, secret=SECRET)
    assert await store.load(TEAM) is None
    await store.save(TEAM, b"first")
    await store.save(TEAM, b"second")
    await store.save("127.0.0.1-8000", b"local")
    other = FileStore(str(folder), secret=SECRET)
    assert await other.load(TEAM) == b"second"
    assert await other.load("127.0.0.1-8000") == b"local"


def test_only_the_owner_can_read_the_files_and_no_other_file_is_left(folder: Path) -> None:
    asyncio.run(FileStore(folder, secret=SECRET).save(TEAM, b"snapshot"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {f"{TEAM}.snapshot": 0o600}


async def test_a_reader_sees_the_old_or_the_new_snapshot(folder: Path) -> None:
    store = FileStore(folder, secret=SECRET)
    snapshots = [bytes([digit]) * 60_000 for digit in b"0123456789"]
    await store.save(TEAM, snapshots[0])

    async def write() -> None:
        for snapshot in snapshots * 3:
            await store.save(TEAM, snapshot)

    writing = asyncio.ensure_future(write())
    while not writing.done():
        assert await store.load(TEAM) in snapshots


def test_threads_of_one_process_do_not_write_into_one_file(folder: Path) -> None:
    problems: list[Exception] = []

    async def write(digit: int) -> None:
        store = FileStore(folder, secret=SECRET)
        for _ in range(40):
            try:
                await store.save(TEAM, bytes([digit]) * 60_000)
            except OSError as problem:
                problems.append(problem)

    threads = [threading.Thread(target=asyncio.run, args=[write(digit)]) for digit in b"01"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(set((folder / f"{TEAM}.snapshot").read_bytes())) == 1
    assert len([*folder.iterdir()]) == 1


async def test_no_more_than_the_longest_snapshot_and_a_byte_is_read(folder: Path) -> None:
    (folder / f"{TEAM}.snapshot").write_bytes(b"x" * 1_000_000)
    found = await FileStore(folder, secret=SECRET).load(TEAM)
    assert found is not None
    assert len(found) == MAX_SNAPSHOT + 1


async def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"elsewhere")
    (folder / f"{TEAM}.snapshot").symlink_to(tmp_path / "elsewhere")
    store = FileStore(folder, secret=SECRET)
    with pytest.raises(OSError, match="symbolic links"):
        await store.load(TEAM)
    await store.save(TEAM, b"snapshot")
    assert await store.load(TEAM) == b"snapshot"
    assert (tmp_path / "elsewhere").read_bytes() == b"elsewhere"


async def test_a_link_in_place_of_the_lock_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / f"{TEAM}.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        async with FileStore(folder, secret=SECRET).lock(TEAM, seconds=1):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_in_place_of_the_file_that_is_written_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"elsewhere")
    beside(folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        module._write(folder / f"{TEAM}.snapshot", b"snapshot")
    assert (tmp_path / "elsewhere").read_bytes() == b"elsewhere"


def test_what_a_write_has_left_that_did_not_end_is_overwritten(folder: Path) -> None:
    beside(folder).write_bytes(b"x" * 1000)
    module._write(folder / f"{TEAM}.snapshot", b"snapshot")
    assert (folder / f"{TEAM}.snapshot").read_bytes() == b"snapshot"


def beside(folder: Path) -> Path:
    """Return the file that this thread writes before it is renamed."""
    return folder / f".{TEAM}.snapshot.{os.getpid()}.{threading.get_native_id()}"


async def test_a_pipe_does_not_hang_the_reader(folder: Path) -> None:
    os.mkfifo(folder / f"{TEAM}.snapshot")
    with pytest.raises(OSError, match="is not a file"):
        await FileStore(folder, secret=SECRET).load(TEAM)


async def test_a_pipe_in_place_of_the_lock_hangs_no_worker(folder: Path) -> None:
    os.mkfifo(folder / f"{TEAM}.lock")
    with pytest.raises(OSError, match="No such device"):
        async with FileStore(folder, secret=SECRET).lock(TEAM, seconds=1):
            pass


async def test_one_worker_has_the_lock(folder: Path) -> None:
    first, second = FileStore(folder, secret=SECRET), FileStore(folder, secret=SECRET)
    await check_lock(first, second)


def test_its_representation_is_the_folder(folder: Path) -> None:
    assert repr(FileStore(folder, secret=SECRET)) == f"<FileStore {folder}>"


def test_a_relative_folder_stays_the_same_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert repr(FileStore("keys", secret=SECRET)) == f"<FileStore {folder}>"


async def test_without_locks_of_the_system_each_worker_fetches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    monkeypatch.delattr(os, "O_NONBLOCK", raising=False)
    spec = find_spec(module.__name__)
    assert spec is not None
    assert spec.loader is not None
    other = module_from_spec(spec)
    spec.loader.exec_module(other)
    async with (
        other.FileStore(folder, secret=SECRET).lock(TEAM, seconds=1) as first,
        other.FileStore(folder, secret=SECRET).lock(TEAM, seconds=1) as second,
    ):
        assert (first, second) == (True, True)
    assert other._NO_LINK == other._NO_WAIT == 0


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o705])
def test_a_folder_that_others_can_read_is_accepted_since_no_snapshot_is_secret(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    assert repr(FileStore(folder, secret=SECRET))


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o707, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(ConfigurationError, match=r"other users may write to the folder .*: chown it, and chmod 700"):
        FileStore(folder, secret=SECRET)


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        FileStore(folder, secret=SECRET)  # root may write everywhere anyway
        os.chown(folder, 12345, -1)
    with pytest.raises(ConfigurationError, match="other users may write to the folder"):
        FileStore(folder, secret=SECRET)


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        (None, "folder must be the path of a folder, as text or a Path"),
        ("/does/not/exist", "the folder /does/not/exist cannot be read; create it with mkdir -m 700"),
        ("/a\0b", "the folder /a\0b cannot be read; create it with mkdir -m 700"),
        (__file__, f"{__file__} is not a folder; name a folder of its own for the store"),
    ],
    ids=["none", "missing", "nul", "file"],
)
def test_a_wrong_folder_is_an_error_at_construction(folder: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        FileStore(folder, secret=SECRET)
    assert str(wrong.value) == sentence


def test_a_short_secret_is_an_error_at_construction(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        FileStore(folder, secret="short")
