"""`cf-access keys`: the keys that a team publishes, read once or watched for changes."""

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

MAX_HISTORY = 10
"""Number of changes that the live view shows."""

Read = Callable[[], Awaitable[bytes]]


def report_keys(document: bytes, *, source: str, now: float, before: list[Key] | None) -> KeysReport:
    """Describe the keys of a certs document, and the changes since `before`."""
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
    """Print a report as text."""
    screen.write(_lines(report, screen, now))


def _lines(report: KeysReport, screen: Screen, now: float) -> list[Text]:
    lines = screen.paragraph(f"{report.source}, read {report.read_at}", style="bold")
    for key in report.keys:
        lines += [Text(), *screen.title(title(key), "ok" if key.usable else "warning")]
        for name, value in details(key, now):
            lines += screen.value(name, value)
    if not report.keys:
        lines += screen.paragraph("the document contains no keys")
    return lines


@dataclass(slots=True)
class Watch:
    """A repeated read of the certs document that prints changes.

    Attributes:
        read: The function that reads the document.
        source: The URL or file name of the document.
        screen: The output.
        clock: The source of time.
        interval: Seconds between two reads.
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
        """Read the document this many times; None means until interrupted."""
        with ExitStack() as stack:
            live = None
            if self.screen.is_live:
                live = stack.enter_context(Live(console=self.screen.console, auto_refresh=False))
            while True:
                await self._poll(live)
                times = times and times - 1
                if times == 0:
                    return
                await self.clock.sleep(self.interval)

    async def _poll(self, live: Live | None) -> None:
        before = self._last
        try:
            document = await self.read()
        except CommandError as error:
            self._report_problem(error, live)
        else:
            self._problem = None
            now = self.clock.now()
            keys = before.keys if before else None
            self._last = report = report_keys(document, source=self.source, now=now, before=keys)
            self._report_changes(report, before, live)
        if live:
            live.update(Group(*self._view()), refresh=True)

    def _report_problem(self, error: CommandError, live: Live | None) -> None:
        if str(error) == self._problem:
            return
        self._problem = str(error)
        self._add_to_history(f"{iso(self.clock.now())} {error}", live)
        if self.screen.as_json:
            self.screen.report(Failure(command="keys", error=str(error), exit_code=error.exit_code), compact=True)

    def _report_changes(self, report: KeysReport, before: KeysReport | None, live: Live | None) -> None:
        changes = _changes(report, before)
        if self.screen.as_json:
            if changes or before is None:
                self.screen.report(report, compact=True)
            return
        if before is None and live is None:
            show(report, self.screen, self.clock.now())
        for change in changes:
            self._add_to_history(f"{report.read_at} {change}", live)

    def _add_to_history(self, line: str, live: Live | None) -> None:
        self._history = [*self._history, line][-MAX_HISTORY:]
        if live is None and not self.screen.as_json:
            self.screen.line(line)

    def _view(self) -> list[Text]:
        lines = _lines(self._last, self.screen, self.clock.now()) if self._last else []
        lines.append(Text())
        for line in (*self._history, f"Reading every {self.interval:g} s; press Ctrl-C to stop."):
            lines += self.screen.paragraph(line)
        return lines


def _changes(report: KeysReport, before: KeysReport | None) -> list[str]:
    if before is None:
        return []
    changes = [f"new key {short(kid)}" for kid in report.added] + [
        f"key {short(kid)} was removed" for kid in report.removed
    ]
    current, former = _current(report), _current(before)
    if current and current != former:
        changes.append(f"the current key is now {short(current)}")
    return changes


def _current(report: KeysReport) -> str | None:
    return next((key.kid for key in report.keys if key.role == "current"), None)


def watch(key_watch: Watch, times: int | None) -> None:
    """Run a watch until an interrupt, or for this many reads."""
    try:
        asyncio.run(key_watch.run(times))
    except KeyboardInterrupt:
        return
