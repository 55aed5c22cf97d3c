"""Revocations: log-outs, blocks and revoked tokens, which every worker of a fleet knows within a second."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from fastapi_cloudflare_access._not_a_dependency import NotADependency, forbid_as_dependency, never_a_dependency
from fastapi_cloudflare_access._revocations.arguments import caller_keys, revocation_of, seconds_of
from fastapi_cloudflare_access._revocations.record import MICROSECONDS, Kind, Record
from fastapi_cloudflare_access._revocations.source import RevocationSource

_NEVER = NotADependency("Depends(access.revocations…) would revoke what a request names: call it in a handler")
_NO_DEPENDENCY = never_a_dependency("A method of access.revocations admits every client: write Depends(access)")


class RevocationsHealth(BaseModel):
    """The state of the revocations. Durations are in seconds.

    Attributes:
        state: `cold` before the first read, `ok`, or `unavailable` if the store cannot be reached.
        ready: Whether requests get no 503 for the sake of revocations.
        records: Number of revocations in force.
        age: Seconds since the end of the log was last read; None if it never was.
        following: Whether the task runs that follows the log; without a lifespan requests read it.
        ignored: Number of records of the store that were ignored.
        last_error: Why the store could last not be used, in words; None after a successful read.
    """

    model_config = ConfigDict(frozen=True)

    state: Literal["cold", "ok", "unavailable"]
    ready: bool
    records: int
    age: float | None
    following: bool
    ignored: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revocation in force.

    Attributes:
        action: `log_out` or `block`.
        by: `sub`, `email`, `client_id` or `token`.
        key: The `sub` or the Client ID; for an address a keyed digest, for a token its SHA-256.
        added_at: Time of the store when it was added.
        until: End of a block; None for a log-out.
    """

    action: Literal["log_out", "block"]
    by: Kind
    key: str
    added_at: datetime
    until: datetime | None


for _kind in (RevocationsHealth, Revocation):
    forbid_as_dependency(_kind, f"{_kind.__name__} never comes from a request: ask access.revocations for it")


class Revocations:
    """The revocations of a team: `access.revocations`."""

    def __init__(self, source: Annotated[RevocationSource, _NEVER]) -> None:
        """Create the operators' view of the revocations; `access.revocations` does."""
        self._source = source

    async def log_out(
        self,
        *,
        sub: Annotated[str | None, _NEVER] = None,
        email: Annotated[str | None, _NEVER] = None,
        client_id: Annotated[str | None, _NEVER] = None,
    ) -> None:
        """Refuse the tokens of a caller that were issued until now; those issued later are accepted.

        Cloudflare issues new tokens without a login while the user's session at Cloudflare lasts, so revoke it there
        too.

        Args:
            sub: The `sub` of a user.
            email: The address of a user, in any case.
            client_id: The Client ID of a service.

        Raises:
            RevocationsUnavailable: The store cannot be used, or the limit is reached; nothing is revoked.
            ConfigurationError: Not exactly one caller is given.
        """
        (kind, key), *_ = caller_keys(self._source.signer, "log_out", sub=sub, email=email, client_id=client_id)
        await self._source.add(lambda at: [Record("log_out", kind, key, at)])

    async def block(
        self,
        *,
        sub: Annotated[str | None, _NEVER] = None,
        email: Annotated[str | None, _NEVER] = None,
        client_id: Annotated[str | None, _NEVER] = None,
        for_: Annotated[timedelta, _NEVER],
    ) -> None:
        """Refuse every token of a caller for some time, also new ones.

        Of several blocks the one that ends last counts.

        Args:
            sub: The `sub` of a user.
            email: The address of a user, in any case.
            client_id: The Client ID of a service.
            for_: Duration, of at most 31 days.

        Raises:
            RevocationsUnavailable: The store cannot be used, or the limit is reached; nothing is blocked.
            ConfigurationError: Not exactly one caller is given, or the duration is wrong.
        """
        (kind, key), *_ = caller_keys(self._source.signer, "block", sub=sub, email=email, client_id=client_id)
        seconds = seconds_of(for_)
        await self._source.add(lambda at: [Record("block", kind, key, at, until=at // MICROSECONDS + 1 + seconds)])

    async def unblock(
        self,
        *,
        sub: Annotated[str | None, _NEVER] = None,
        email: Annotated[str | None, _NEVER] = None,
        client_id: Annotated[str | None, _NEVER] = None,
    ) -> None:
        """End the blocks of a caller that were added by the same key; a log-out stays.

        Args:
            sub: The `sub` of a user.
            email: The address of a user, in any case.
            client_id: The Client ID of a service.

        Raises:
            RevocationsUnavailable: The store cannot be used; nothing has changed.
            ConfigurationError: Not exactly one caller is given.
        """
        keys = caller_keys(self._source.signer, "unblock", sub=sub, email=email, client_id=client_id)
        await self._source.add(lambda at: [Record("unblock", kind, key, at) for kind, key in keys])

    async def revoke(self, token: Annotated[str | bytes, _NEVER]) -> None:
        """Refuse one token until it expires.

        The token is not verified: call it only with a token that the app has accepted, or that you trust.

        Raises:
            RevocationsUnavailable: The store cannot be used, or the limit is reached; the token is not revoked.
            ConfigurationError: This is not a token, or it expires after more than 31 days.
        """
        await self._source.add(revocation_of(token))

    @_NO_DEPENDENCY
    def in_force(self) -> list[Revocation]:
        """Return the revocations that this process knows, the latest first."""
        return [*map(_shown, sorted(self._source.records(), key=lambda record: record.at, reverse=True))]

    @_NO_DEPENDENCY
    def health(self) -> RevocationsHealth:
        """Return the state of the revocations."""
        source = self._source
        state: Literal["cold", "ok", "unavailable"] = "cold" if source.age is None else "unavailable"
        return RevocationsHealth(
            state="ok" if source.is_current else state,
            ready=source.is_ready,
            records=source.count,
            age=source.age,
            following=source.is_following,
            ignored=source.report.ignored,
            last_error=source.report.last_error,
        )


forbid_as_dependency(Revocations, "Revocations is no dependency: call access.revocations.log_out(…) in a handler")


def _shown(record: Record) -> Revocation:
    until = datetime.fromtimestamp(record.until, UTC) if record.action == "block" else None
    added_at = datetime.fromtimestamp(record.at / MICROSECONDS, UTC)
    action: Literal["log_out", "block"] = "block" if record.action == "block" else "log_out"
    return Revocation(action, record.kind, record.key, added_at, until)
