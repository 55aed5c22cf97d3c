"""`cf-access revoke` and `cf-access revocations`: revocations in the store of a fleet."""

import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fastapi_cloudflare_access._revocations.source import RevocationSource
from fastapi_cloudflare_access.cli.formatting import iso, plural, printable, relative
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import (
    CommandError,
    ExitCode,
    RevocationEntry,
    RevocationsReport,
    RevokeReport,
)
from fastapi_cloudflare_access.errors import RevocationsUnavailable
from fastapi_cloudflare_access.protocols import Clock, RevocationStore
from fastapi_cloudflare_access.revocations import Revocations
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.stores.redis import RedisStore

STORE_VARIABLE = "CF_ACCESS_REVOCATION_STORE"
"""Environment variable for the URL of the store."""
SECRET_VARIABLE = "CF_ACCESS_REVOCATION_SECRET"  # noqa: S105 - a name
"""Environment variable for the secret of the store."""
MAX_SECRET_FILE = 16 * 1024
"""Number of bytes that the file with the secret may have."""
SHOWN_KEY = 40
"""Number of characters of a `sub` or a Client ID that a table shows."""

_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Target:
    """The caller or the token of `cf-access revoke`, of which one is given.

    Attributes:
        sub: The `sub` of a user.
        email: The address of a user.
        client_id: The Client ID of a service.
        token: A token.
    """

    sub: str | None = None
    email: str | None = None
    client_id: str | None = None
    token: bytes | None = None

    @property
    def caller(self) -> dict[str, str | None]:
        """The arguments of `access.revocations` for a caller."""
        return {"sub": self.sub, "email": self.email, "client_id": self.client_id}


def make_store(url: str | None, secret_file: Path | None, prefix: str) -> RevocationStore:
    """Return the store that the options and the environment name.

    Raises:
        CommandError: The URL or the secret is missing.
        ConfigurationError: One of them is wrong.
    """
    url = url or os.environ.get(STORE_VARIABLE)
    if not url:
        raise CommandError(f"There is no store: set {STORE_VARIABLE} to its URL, or pass --store.")
    return RedisStore(url, secret=_secrets(secret_file), prefix=prefix)


def _secrets(file: Path | None) -> list[str]:
    if file is None:
        given = os.environ.get(SECRET_VARIABLE)
        if not given:
            raise CommandError(f"There is no secret of the store: pass --secret-file, or set {SECRET_VARIABLE}.")
        return [given.strip()]
    with file.open("rb") as opened:
        content = opened.read(MAX_SECRET_FILE + 1)
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        lines = []
    if len(content) > MAX_SECRET_FILE or not any(line.strip() for line in lines):
        raise CommandError(f"{printable(str(file))} is not a file of secrets: it must be text with one on each line.")
    return [line.strip() for line in lines if line.strip()]


def duration_of(text: str) -> timedelta:
    """Return the duration that a text such as `90s`, `30m`, `2h` or `7d` names.

    Raises:
        CommandError: It is another text.
    """
    if not (match := _DURATION.fullmatch(text)):
        raise CommandError("--for takes a duration such as 90s, 30m, 2h or 7d.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def source_of(store: RevocationStore, settings: Settings, clock: Clock) -> RevocationSource:
    """Return the revocations of the team in this store."""
    return RevocationSource(store, settings, clock=clock)


async def revoke(source: RevocationSource, target: Target, *, for_: timedelta | None, unblock: bool) -> RevokeReport:
    """Add one revocation.

    Raises:
        CommandError: The arguments exclude each other, the store cannot be used, or its workers would ignore it.
        ConfigurationError: The caller or the token is wrong.
    """
    revocations = Revocations(source)
    if target.token is not None and (any(target.caller.values()) or for_ is not None or unblock):
        raise CommandError("A token is revoked alone: leave out the other options.")
    if for_ is not None and unblock:
        raise CommandError("Pass --for to block a caller, or --unblock, not both.")
    await _check_secret(source)
    try:
        if target.token is not None:
            await revocations.revoke(target.token)
            return RevokeReport(action="revoke")
        if unblock:
            await revocations.unblock(**target.caller)
            return RevokeReport(action="unblock")
        if for_ is not None:
            await revocations.block(**target.caller, for_=for_)
            return RevokeReport(action="block")
        await revocations.log_out(**target.caller)
        return RevokeReport(action="log_out")
    except RevocationsUnavailable as unavailable:
        raise CommandError(f"The store cannot be used: {unavailable}.", ExitCode.INCONCLUSIVE) from None


async def _check_secret(source: RevocationSource) -> None:
    """Check that the workers read what is signed with this secret, since each of them signs a record every day."""
    await source.read_all()
    if source.report.ignored and not source.report.has_read_own:
        raise CommandError(
            "Nothing was stored: no record of the store is of this team and signed with this secret, so the workers "
            "would ignore this one. Pass the secret and the team of the app."
        )


def show_revoked(report: RevokeReport, screen: Screen, *, has_workers: bool) -> None:
    """Print what was added, and whether a worker has used this log before."""
    done = {
        "log_out": "Logged out: tokens issued until now are refused.",
        "block": "Blocked: every token is refused until the end of the block.",
        "unblock": "Unblocked: earlier blocks have ended; a log-out stays.",
        "revoke": "Revoked: this token is refused.",
    }
    screen.line(done[report.action])
    if report.action in ("log_out", "revoke"):
        screen.hint("Cloudflare issues new tokens while the user's session there lasts: revoke it there too.")
    if not has_workers:
        screen.hint(
            "No worker has used this log before: compare the URL, the prefix and the team with those of the app."
        )


async def read(source: RevocationSource) -> RevocationsReport:
    """Read the revocations in force.

    Raises:
        CommandError: The store cannot be read.
    """
    await source.read_all()
    if source.age is None:
        raise CommandError(f"The store cannot be read: {source.report.last_error}.", ExitCode.INCONCLUSIVE)
    entries = [
        RevocationEntry(
            action=each.action,
            by=each.by,
            key=each.key,
            added_at=_iso(each.added_at),
            until=None if each.until is None else _iso(each.until),
        )
        for each in Revocations(source).in_force()
    ]
    return RevocationsReport(revocations=entries, ignored=source.report.ignored)


def _iso(time: datetime) -> str:
    return iso(time.timestamp())


def show(report: RevocationsReport, screen: Screen, now: float) -> None:
    """Print the revocations in force, the latest first."""
    screen.line(f"{plural(len(report.revocations), 'revocation')} in force", style="bold")
    for each in report.revocations:
        key = f"{each.key[:12]}…" if each.by in ("email", "token") else printable(each.key, limit=SHOWN_KEY)
        ends = f", until {each.until}, {_relative(each.until, now)}" if each.until else ""
        verb = "log-out" if each.action == "log_out" else "block"
        screen.line(f"{verb} of {each.by} {key}: added {each.added_at}, {_relative(each.added_at, now)}{ends}")
    if report.ignored:
        screen.line(f"{plural(report.ignored, 'record')} of the store ignored, since not signed by this team")


def _relative(time: str, now: float) -> str:
    return relative(datetime.fromisoformat(time).timestamp(), now)
