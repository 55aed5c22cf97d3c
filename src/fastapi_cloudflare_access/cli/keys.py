"""`cf-access keys`: the keys that a team publishes, once or as they change."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from rich.console import Group
from rich.live import Live
from rich.text import Text

from fastapi_cloudflare_access.cli.formatting import iso, short
from fastapi_cloudflare_access.cli.key_description import describe_keys, details, title
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import CommandError, Failure, Key, KeysReport
from fastapi_cloudflare_access.protocols import Clock

REMEMBERED = 10
"""How many changes the live view shows."""

Read = Callable[[], Awaitable[bytes]]


def report_keys(document: bytes, *, source: str, now: float, before: list[Key] | None) -> KeysReport:
    """Describe the keys of a certs document, and what changed since before."""
    keys = describe_keys(document, now=now)
    kids, former = ([key.kid for key in those if key.kid] for those in (keys, keys if before is None else before))
    return KeysReport(
        source=source,
        read_at=iso(now),
        keys=keys,
        added=[kid for kid in kids if kid not in former],
        removed=[kid for kid in former if kid not in kids],
    )


def show(report: KeysReport, screen: Screen, now: float) -> None:
    """Write a report for people."""
    screen.write(_lines(report, screen, now))


def _lines(report: KeysReport, screen: Screen, now: float) -> list[Text]:
    lines = screen.paragraph(f"{report.source}, read {report.read_at}", style="bold")
    for key in report.keys:
        lines += [Text(), *screen.title(title(key), "ok" if key.usable else "warning")]
        for name, value in details(key, now):
            lines += screen.value(name, value)
    if not report.keys:
        lines += screen.paragraph("there is no key in it")
    return lines


@dataclass(slots=True)
class Watch:
    """Reads the certs document again and again, and shows what changes.

    Attributes:
        read: Reads the document.
        source: Where it is read.
        screen: Where to write.
        clock: Where time comes from.
        interval: Seconds between two readings.
    """

    read: Read
    source: str
    screen: Screen
    clock: Clock
    interval: float
    _last: KeysReport | None = None
    _problem: str | None = None
    _history: list[str] = field(default_factory=list[str])

    async def read_once(self) -> KeysReport:
        """Read the document once."""
        return report_keys(await self.read(), source=self.source, now=self.clock.now(), before=None)

    async def run(self, times: int | None) -> None:
        """Watch so many readings, or for ever."""
        with ExitStack() as stack:
            live = None
            if self.screen.is_live:
                live = stack.enter_context(Live(console=self.screen.console, auto_refresh=False))
            while True:
                await self._once(live)
                times = times and times - 1
                if times == 0:
                    return
                await self.clock.sleep(self.interval)

    async def _once(self, live: Live | None) -> None:
        before = self._last
        try:
            document = await self.read()
        except CommandError as error:
            self._note_problem(error, live)
        else:
            self._problem = None
            now = self.clock.now()
            keys = before.keys if before else None
            self._last = report = report_keys(document, source=self.source, now=now, before=keys)
            self._note_changes(report, before, live)
        if live:
            live.update(Group(*self._view()), refresh=True)

    def _note_problem(self, error: CommandError, live: Live | None) -> None:
        if str(error) == self._problem:
            return
        self._problem = str(error)
        self._tell(f"{iso(self.clock.now())} {error}", live)
        if self.screen.as_json:
            self.screen.report(Failure(command="keys", error=str(error), exit_code=error.exit_code), compact=True)

    def _note_changes(self, report: KeysReport, before: KeysReport | None, live: Live | None) -> None:
        changes = _changes(report, before)
        if self.screen.as_json:
            if changes or before is None:
                self.screen.report(report, compact=True)
            return
        if before is None and live is None:
            show(report, self.screen, self.clock.now())
        for change in changes:
            self._tell(f"{report.read_at} {change}", live)

    def _tell(self, line: str, live: Live | None) -> None:
        self._history = [*self._history, line][-REMEMBERED:]
        if live is None and not self.screen.as_json:
            self.screen.line(line)

    def _view(self) -> list[Text]:
        lines = _lines(self._last, self.screen, self.clock.now()) if self._last else []
        lines.append(Text())
        for line in (*self._history, f"Read every {self.interval:g} s; Ctrl-C ends it."):
            lines += self.screen.paragraph(line)
        return lines


def _changes(report: KeysReport, before: KeysReport | None) -> list[str]:
    if before is None:
        return []
    changes = [f"new key {short(kid)}" for kid in report.added] + [
        f"key {short(kid)} is gone" for kid in report.removed
    ]
    current, former = _current(report), _current(before)
    if current and current != former:
        changes.append(f"the current key is {short(current)} now")
    return changes


def _current(report: KeysReport) -> str | None:
    return next((key.kid for key in report.keys if key.role == "current"), None)


def watch(watching: Watch, times: int | None) -> None:
    """Watch until it is interrupted, or for so many readings."""
    try:
        asyncio.run(watching.run(times))
    except KeyboardInterrupt:
        return
