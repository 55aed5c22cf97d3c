"""`revoke` and `revocations` change and show what the workers of a fleet share."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli
from support.fleet_rig import SECRET
from support.redis_server import needs_redis, redis_server
from support.revocation_rig import BreakableStore

from fastapi_cloudflare_access.cli import revoking
from fastapi_cloudflare_access.cli.reports import CommandError
from fastapi_cloudflare_access.testing import FakeTeam

URL = "redis://:password@localhost:1/0"


@pytest.fixture
def store(configured: FakeTeam, monkeypatch: pytest.MonkeyPatch) -> BreakableStore:
    """A store in memory, whatever the options say."""
    store = BreakableStore(configured.clock)
    monkeypatch.setattr(revoking, "make_store", lambda *_: store)
    return store


def listed(cli: Cli) -> list[tuple[str, str, str]]:
    result = cli("revocations", "--json")
    assert result.code == 0
    return [(each["action"], each["by"], each["key"]) for each in result.json["revocations"]]


def test_a_caller_is_logged_out(cli: Cli, store: BreakableStore) -> None:
    result = cli("revoke", "--sub", "ada")
    assert (result.code, result.err) == (0, "")
    assert "Logged out: tokens issued until now are refused." in result.out
    assert "revoke it there too" in result.out
    assert listed(cli) == [("log_out", "sub", "ada")]


@pytest.mark.parametrize("option", ["--email", "--client-id"])
def test_a_caller_is_blocked_and_unblocked(cli: Cli, store: BreakableStore, option: str) -> None:
    assert "Blocked: " in cli("revoke", option, "ada@example.com", "--for", "2h").out
    ((action, by, key),) = listed(cli)
    assert (action, "--" + by.replace("_", "-")) == ("block", option)
    assert (key == "ada@example.com") == (option == "--client-id")
    store.clock.advance(1)  # type: ignore[attr-defined]  # pyright: ignore - a fake clock
    assert "Unblocked: " in cli("revoke", option, "ada@example.com", "--unblock").out
    assert listed(cli) == []


def test_one_token_is_revoked(cli: Cli, store: BreakableStore, configured: FakeTeam) -> None:
    token = configured.user_token("ada@example.com")
    result = cli("revoke", "-", "--json", stdin=token)
    assert (result.code, result.json) == (0, {"command": "revoke", "action": "revoke"})
    assert [(action, by) for action, by, _ in listed(cli)] == [("block", "token")]


def test_the_list_shows_times_and_no_control_characters(cli: Cli, store: BreakableStore) -> None:
    assert cli("revocations").out == "0 revocations in force\n"
    cli("revoke", "--sub", "s" * 60)
    cli("revoke", "--email", "ada@example.com", "--for", "90s")
    store.plant(b"garbage\x1b[31m")
    store.clock.advance(60)  # type: ignore[attr-defined]  # pyright: ignore - a fake clock
    out = cli("revocations").out
    assert "2 revocations in force\n" in out
    assert f"log-out of sub {'s' * 39}…: added 2026-01-01T00:00:00Z, 1 minute ago\n" in out
    assert ", until 2026-01-01T00:01:31Z, in 31 seconds\n" in out
    assert "1 record of the store ignored" in out
    assert "ada@" not in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--for", "2h"], "block takes one of sub=…, email=… and client_id=…"),
        (["--sub", "ada", "--email", "ada@example.com"], "log_out takes one of"),
        (["--sub", "ada", "--for", "soon"], "--for takes a duration such as 90s, 30m, 2h or 7d."),
        (["--sub", "ada", "--for", "32d"], "at most 31 days"),
        (["--sub", "ada", "--for", "0s"], "for_ must be positive"),
        (["--sub", "ada", "--for", "2h", "--unblock"], "Pass --for to block a caller, or --unblock, not both."),
        (["a.b.c"], "revoke takes a token of Cloudflare Access"),
        (["TOKEN", "--sub", "ada"], "A token is revoked alone: leave out the other options."),
        (["TOKEN", "--unblock"], "A token is revoked alone"),
        (["TOKEN", "--for", "2h"], "A token is revoked alone"),
    ],
    ids=range(10),
)
def test_a_wrong_use_is_one_sentence(
    cli: Cli, store: BreakableStore, configured: FakeTeam, arguments: list[str], message: str
) -> None:
    token = configured.user_token("ada@example.com")
    result = cli("revoke", *(token if each == "TOKEN" else each for each in arguments))
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert token not in result.err
    assert listed(cli) == []


def test_a_record_that_the_workers_would_ignore_is_not_stored(cli: Cli, store: BreakableStore) -> None:
    assert cli("revoke", "--sub", "ada").code == 0
    store.secret = "another secret, which no worker has"
    before = store.content()
    result = cli("revoke", "--sub", "bob")
    assert (result.code, result.out, store.content()) == (2, "", before)
    assert "Nothing was stored: no record of the store is of this team and signed with this secret" in result.err


def test_a_log_that_no_worker_has_used_is_pointed_out(cli: Cli, store: BreakableStore) -> None:
    hint = "No worker has used this log before"
    assert hint in cli("revoke", "--sub", "ada").out
    assert hint not in cli("revoke", "--sub", "bob").out


def test_a_store_that_cannot_be_used_is_inconclusive(cli: Cli, store: BreakableStore) -> None:
    store.problem = OSError()
    for arguments in (["revoke", "--sub", "ada"], ["revocations"]):
        result = cli(*arguments)
        assert result.code == 3
        assert "it failed with OSError" in result.err


# The store and its secret


def test_a_store_that_is_missing_is_one_sentence(cli: Cli, configured: FakeTeam) -> None:
    result = cli("revocations")
    assert (result.code, result.out) == (2, "")
    assert "There is no store: set CF_ACCESS_REVOCATION_STORE to its URL, or pass --store." in result.err


def test_a_secret_that_is_missing_or_short_is_one_sentence(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = cli("revocations", "--store", URL)
    assert "There is no secret of the store: pass --secret-file, or set CF_ACCESS_REVOCATION_SECRET." in result.err
    monkeypatch.setenv("CF_ACCESS_REVOCATION_SECRET", "short")
    result = cli("revocations", "--store", URL)
    assert (result.code, "at least 32 bytes" in result.err, "password" in result.err) == (2, True, False)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff" * 40, b"x" * 20_000], ids=range(4))
def test_a_file_without_a_secret_is_one_sentence(
    cli: Cli, configured: FakeTeam, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    result = cli("revocations", "--store", URL, "--secret-file", str(file))
    assert (result.code, "is not a file of secrets" in result.err) == (2, True)


def test_a_file_may_have_several_secrets(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\r\n\n{'former' * 6}\n")
    store = revoking.make_store(URL, file, "cf-access:")
    assert store.secret == (SECRET.encode(), b"former" * 6)


def test_a_duration_has_a_number_and_a_unit() -> None:
    durations = [revoking.duration_of(text) for text in ("90s", "30m", "2h", "7d")]
    assert durations == [timedelta(seconds=90), timedelta(minutes=30), timedelta(hours=2), timedelta(days=7)]
    for wrong in ("", "7", "d", "-1h", "1.5h", "1w", "9999999s", "\u0661h"):
        with pytest.raises(CommandError, match="--for takes a duration"):
            revoking.duration_of(wrong)


@needs_redis
def test_the_command_works_with_a_real_server(
    cli: Cli, configured: FakeTeam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fastapi_cloudflare_access._clock import SystemClock

    file = tmp_path / "secret"
    file.write_text(SECRET)
    clock: Any = SystemClock()
    with redis_server() as server:
        monkeypatch.setenv("CF_ACCESS_REVOCATION_STORE", server.url)
        options = ["--secret-file", str(file)]
        assert cli("revoke", "--sub", "ada", *options, clock=clock).code == 0
        assert "log-out of sub ada: added " in cli("revocations", *options, clock=clock).out
