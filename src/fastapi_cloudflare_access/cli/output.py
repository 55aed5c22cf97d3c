"""The screen: colours where somebody looks, plain text where it is piped, JSON where it is asked for."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from fastapi_cloudflare_access.cli.formatting import printable
from fastapi_cloudflare_access.cli.reports import Report, Status, Step, Verdict

# Each has a contrast of 3.5:1 at least to white, and to black and the dark grey that many terminals have in its place.
STYLES: Mapping[Status, str] = {"ok": "#009a00", "warning": "color(166)", "failed": "color(196)", "skipped": ""}
MARKS: Mapping[Status, str] = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "·"}
PLAIN_MARKS: Mapping[Status, str] = {"ok": "+", "warning": "!", "failed": "x", "skipped": "-"}
NAME_WIDTH = 12


class Screen:
    """Where a command writes."""

    def __init__(self, *, as_json: bool = False) -> None:
        """Write to standard output, as JSON or for people."""
        self.as_json = as_json
        self.console = Console(highlight=False, markup=False, emoji=False)
        knows_marks = self.console.encoding.lower().startswith("utf")
        self.marks, self.arrow = (MARKS, "→") if knows_marks else (PLAIN_MARKS, ">")

    @property
    def is_live(self) -> bool:
        """Whether somebody looks at it who can be shown something that moves."""
        return not self.as_json and self.console.is_terminal and self.console.file.isatty()

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show that something takes its time."""
        return self.console.status(text, spinner="line", spinner_style=STYLES["ok"]) if self.is_live else nullcontext()

    def report(self, report: Report, *, compact: bool = False) -> None:
        """Write JSON, in ASCII so that it does nothing to a terminal."""
        content = report.model_dump(mode="json")
        text = json.dumps(content, separators=(",", ":")) if compact else json.dumps(content, indent=2)
        self.console.file.write(f"{text}\n")
        self.console.file.flush()

    def line(self, text: str = "", *, style: str = "") -> None:
        """Write a paragraph."""
        self.write(self.paragraph(text, style=style))

    def paragraph(self, text: str, *, style: str = "") -> list[Text]:
        """Fold a paragraph."""
        return self._hang(Text(), Text(text, style=style))

    def step(self, step: Step) -> None:
        """Write how a step went, and what to do."""
        text = f"{step.text} ({step.reason})" if step.reason else step.text
        body = Text.assemble((f"{step.name}: ", "bold"), text)
        self.write(self._hang(self._mark(step.status), body) + self._hint(step.hint))

    def verdict(self, verdict: Verdict) -> None:
        """Write the verdict, and what to do."""
        status: Status = "warning" if verdict.accepted is None else "ok" if verdict.accepted else "failed"
        text = f"{verdict.text} ({verdict.reason})" if verdict.reason else verdict.text
        self.write(self._hang(self._mark(status), Text(text, style="bold")) + self._hint(verdict.hint))

    def field(self, name: str, value: str) -> None:
        """Write a value beside its name."""
        self.write(self.value(name, value))

    def title(self, text: str, status: Status) -> list[Text]:
        """Fold a heading with its mark."""
        return self._hang(self._mark(status), Text(text, style="bold"))

    def value(self, name: str, value: str) -> list[Text]:
        """Fold a value beside its name."""
        head = printable(name, limit=64).ljust(NAME_WIDTH)
        return self._hang(Text(f"  {head} "), Text(printable(value, limit=2000)))

    def write(self, lines: Iterable[Text]) -> None:
        """Write lines that are folded already."""
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def _hint(self, hint: str | None) -> list[Text]:
        return self._hang(Text(f"  {self.arrow} "), Text(hint)) if hint else []

    def _mark(self, status: Status) -> Text:
        return Text(f"{self.marks[status]} ", style=f"bold {STYLES[status]}")

    def _hang(self, head: Text, body: Text) -> list[Text]:
        """Fold a paragraph under its head, as wide as the screen; piped, it stays one line."""
        if not self.console.is_terminal:
            return [_joined(head, body)]
        width = max(20, self.console.width - head.cell_len)
        gap = Text(" " * head.cell_len)
        return [_joined(gap if number else head, part) for number, part in enumerate(body.wrap(self.console, width))]


def _joined(head: Text, body: Text) -> Text:
    line = Text.assemble(head, body)
    line.rstrip()
    return line


def say_error(message: str) -> None:
    """Write one sentence to standard error, where that can be written."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    try:
        console.print(
            Text.assemble(("cf-access: ", f"bold {STYLES['failed']}"), message), soft_wrap=not console.is_terminal
        )
    except (OSError, SystemExit):  # rich ends so where nobody reads any more
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """Have what is left for a stream go nowhere, so that nothing fails at exit."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
