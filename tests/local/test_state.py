"""The state survives a restart, and only its owner can read it."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.local_rig import make_state

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.state import FILE_NAME, MAX_SESSIONS, Session, State, StoredKey


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def make_full_state(folder: Path) -> State:
    state = State(folder)
    state.keys = make_state().keys
    state.add_session(Session("n", "ada@example.com", 1.0, 2.0, ended="revoked", tokens={"tag": {"sub": "x"}}))
    return state


def test_keys_secrets_and_sessions_survive_a_restart(folder: Path) -> None:
    state = make_full_state(folder)
    secret = state.client_secret("id.access")
    again = State(folder)
    assert (again.keys, again.secret, again.sessions) == (state.keys, state.secret, state.sessions)
    assert again.client_secret("id.access") == secret


def test_a_file_of_another_version_can_have_more_or_fewer_members(folder: Path) -> None:
    make_full_state(folder)
    content = json.loads((folder / FILE_NAME).read_text())
    del content["oauth"]
    content["sessions"][0]["later"] = content["later"] = 1
    (folder / FILE_NAME).write_text(json.dumps(content))
    assert State(folder).sessions["n"].ended == "revoked"


def test_only_the_owner_can_read_the_folder_and_git_ignores_it(folder: Path) -> None:
    make_full_state(folder)
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"
    assert sorted(file.name for file in folder.iterdir()) == [".gitignore", FILE_NAME]


def test_an_existing_gitignore_stays_unchanged(folder: Path) -> None:
    folder.mkdir()
    (folder / ".gitignore").write_text("mine\n")
    make_full_state(folder)
    assert (folder / ".gitignore").read_text() == "mine\n"


def test_a_readable_file_becomes_private(folder: Path) -> None:
    make_full_state(folder)
    (folder / FILE_NAME).chmod(0o644)
    State(folder)
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600


def test_a_client_secret_has_the_documented_format_and_is_unique(folder: Path) -> None:
    state = State()
    first, second = state.client_secret("a"), state.client_secret("b")
    assert first != second
    assert first.startswith("cfast_")
    assert len(first) == len("cfast_") + 48
    assert State().secret != State().secret


def test_nothing_is_written_without_a_folder() -> None:
    state = State()
    state.add_session(Session("n", "ada@example.com", 1.0, 2.0))
    assert state.sessions.keys() == {"n"}


def test_the_oldest_sessions_are_removed_beyond_the_limit() -> None:
    state = State()
    for number in range(MAX_SESSIONS + 2):
        state.add_session(Session(str(number), "ada@example.com", 1.0, 2.0))
    assert list(state.sessions) == [str(number) for number in range(2, MAX_SESSIONS + 2)]


def no_rsa_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


DAMAGE: dict[str, Any] = {
    "client secret": {"client_secrets": {"hunter2": 5}},
    "infinity": {"sessions": [{"id": "hunter2", "email": "a", "created": float("inf"), "expires": 2}]},
    "member": {"sessions": [{"id": "hunter2"}]},
    "oauth": {"oauth": ["hunter2"]},
    "oauth clients": {"oauth": {"clients": {"a": {"redirect_uris": "hunter2"}}}},
    "oauth grant": {"oauth": {"access": {"hunter2": {}}}},
    "secret": {"secret": ["hunter2"]},
    "tokens": {"sessions": [{"id": "a", "email": "a", "created": 1, "expires": 2, "tokens": {"a": "hunter2"}}]},
}


@pytest.mark.parametrize("damage", ["bytes", "ed25519", "key", "list", "nesting", "text", *DAMAGE])
def test_the_error_names_a_damaged_file_without_its_content(folder: Path, damage: str) -> None:
    make_full_state(folder)
    file = folder / FILE_NAME
    content = json.loads(file.read_text())
    damaged = {
        "bytes": b"\xffhunter2",
        "ed25519": json.dumps(content | {"keys": [{"pem": no_rsa_key(), "issued": 1}]}).encode(),
        "key": json.dumps(content | {"keys": [{"pem": "hunter2", "issued": 1}]}).encode(),
        "list": b"[]",
        "nesting": b"[" * 100_000,
        "text": b"hunter2",
    }
    file.write_bytes(damaged.get(damage) or json.dumps(content | DAMAGE[damage]).encode())
    with pytest.raises(ConfigurationError, match="cannot be read; delete it") as wrong:
        State(folder)
    assert "hunter2" not in str(wrong.value)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written: Not a directory"):
        State(tmp_path / "file" / "state").save()


def test_a_failed_write_keeps_the_old_file_and_removes_the_new_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_full_state(folder)
    before = (folder / FILE_NAME).read_text()
    monkeypatch.setattr(Path, "replace", _fail)
    with pytest.raises(ConfigurationError, match="cannot be written: No space"):
        state.client_secret("x")
    assert (folder / FILE_NAME).read_text() == before
    assert len(list(folder.iterdir())) == 2


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_stored_key_must_be_an_rsa_key() -> None:
    with pytest.raises(ValueError, match="not an RSA key"):
        _ = StoredKey(no_rsa_key(), 1.0).private
