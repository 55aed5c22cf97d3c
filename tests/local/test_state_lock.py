"""Two local Accesses never use one state folder at once."""

import os
from pathlib import Path

import pytest

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import run_local_access
from fastapi_cloudflare_access.local.state_lock import LOCK_FILE, locked, optional_lock


def test_a_second_lock_names_the_first_process(tmp_path: Path) -> None:
    with locked(tmp_path / "s"):
        with pytest.raises(ConfigurationError, match=rf"another local Access uses .* \(process {os.getpid()}\)"):
            locked(tmp_path / "s").__enter__()
        (tmp_path / "s" / LOCK_FILE).write_text("")
        with pytest.raises(ConfigurationError, match=r"another local Access uses .*; stop it"):
            locked(tmp_path / "s").__enter__()


def test_a_lock_ends_with_its_context(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"
    with locked(tmp_path):
        pass
    with optional_lock(None), optional_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        locked(tmp_path / "file" / "s").__enter__()


def test_a_second_local_access_on_the_folder_is_rejected(tmp_path: Path) -> None:
    with (
        run_local_access(state=tmp_path),
        pytest.raises(ConfigurationError, match="another local Access"),
        run_local_access(state=tmp_path),
    ):
        pass
