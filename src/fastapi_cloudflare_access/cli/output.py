"""Output: colours on a terminal, plain text in a pipe, JSON on request."""

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

# Contrast of each: at least 3.5:1 on white and black, and 3:1 on the dark grey that many terminals use for black.
STYLES: Mapping[Status, str] = {"ok": "#009a00", "warning": "color(166)", "failed": "color(196)", "skipped": ""}
MARKS: Mapping[Status, str] = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "·"}
PLAIN_MARKS: Mapping[Status, str] = {"ok": "+", "warning": "!", "failed": "x", "skipped": "-"}
NAME_WIDTH = 12
MIN_COLUMN = 24
"""Columns that the last column of a table needs at least."""


class Screen:
    """The output of a command."""

    def __init__(self, *, as_json: bool = False) -> None:
        """Write to standard output, as JSON or as text."""
        self.as_json = as_json
        self.console = Console(highlight=False, markup=False, emoji=False)
        has_unicode = self.console.encoding.lower().startswith("utf")
        self.marks, self.hint_mark = (MARKS, "→") if has_unicode else (PLAIN_MARKS, ">")

    @property
    def is_live(self) -> bool:
        """Whether the output is a terminal that can show animations."""
        return not self.as_json and self.console.is_terminal and self.console.file.isatty()

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show a spinner on a terminal until the context ends."""
        return self.console.status(text, spinner="line", spinner_style=STYLES["ok"]) if self.is_live else nullcontext()

    def report(self, report: Report, *, compact: bool = False) -> None:
        """Write JSON in ASCII, so that it contains no control characters."""
        content = report.model_dump(mode="json")
        text = json.dumps(content, separators=(",", ":")) if compact else json.dumps(content, indent=2)
        self.console.file.write(f"{text}\n")
        self.console.file.flush()

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print a paragraph."""
        self.write(self.paragraph(text, style=style))

    def paragraph(self, text: str, *, style: str = "") -> list[Text]:
        """Wrap a paragraph."""
        return self._indent(Text(), Text(text, style=style))

    def step(self, step: Step) -> None:
        """Print a step and its hint."""
        text = f"{step.text} ({step.reason})" if step.reason else step.text
        body = Text.assemble((f"{step.name}: ", "bold"), text)
        self.write(self._indent(self._mark(step.status), body) + self._hint(step.hint))

    def verdict(self, verdict: Verdict) -> None:
        """Print a verdict and its hint."""
        status: Status = "warning" if verdict.accepted is None else "ok" if verdict.accepted else "failed"
        text = f"{verdict.text} ({verdict.reason})" if verdict.reason else verdict.text
        self.write(self._indent(self._mark(status), Text(text, style="bold")) + self._hint(verdict.hint))

    def row(self, status: Status, head: str, text: str) -> None:
        """Print a mark, the first columns of a table and its last one, which gets a line of its own if it must."""
        start = Text.assemble(self._mark(status), head)
        if self.console.is_terminal and start.cell_len > self.console.width - MIN_COLUMN:
            self.write([_joined(start, Text()), *self._indent(Text("    "), Text(text))])
        else:
            self.write(self._indent(start, Text(text)))

    def hint(self, hint: str) -> None:
        """Print the next action for the operator."""
        self.write(self._hint(hint))

    def field(self, name: str, value: str) -> None:
        """Print a name and its value."""
        self.write(self.value(name, value))

    def title(self, text: str, status: Status) -> list[Text]:
        """Wrap a heading with its mark."""
        return self._indent(self._mark(status), Text(text, style="bold"))

    def value(self, name: str, value: str) -> list[Text]:
        """Wrap a name and its value."""
        head = printable(name, limit=64).ljust(NAME_WIDTH)
        return self._indent(Text(f"  {head} "), Text(printable(value, limit=2000)))

    def write(self, lines: Iterable[Text]) -> None:
        """Print lines that are already wrapped."""
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def _hint(self, hint: str | None) -> list[Text]:
        return self._indent(Text(f"  {self.hint_mark} "), Text(hint)) if hint else []

    def _mark(self, status: Status) -> Text:
        return Text(f"{self.marks[status]} ", style=f"bold {STYLES[status]}")

    def _indent(self, head: Text, body: Text) -> list[Text]:
        """Wrap a paragraph to the terminal with a hanging indent; in a pipe it stays one line."""
        if not self.console.is_terminal:
            return [_joined(head, body)]
        width = max(20, self.console.width - head.cell_len)
        gap = Text(" " * head.cell_len)
        return [_joined(gap if number else head, part) for number, part in enumerate(body.wrap(self.console, width))]


def _joined(head: Text, body: Text) -> Text:
    line = Text.assemble(head, body)
    line.rstrip()
    return line


def print_error(message: str) -> None:
    """Print one sentence to standard error, and ignore a failure to write it."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    try:
        console.print(
            Text.assemble(("cf-access: ", f"bold {STYLES['failed']}"), message), soft_wrap=not console.is_terminal
        )
    except (OSError, SystemExit):  # rich turns a broken pipe into SystemExit
        discard_output(sys.stderr)


def discard_output(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that the flush at exit does not fail."""
    with Path(os.devnull).open("w") as null_device:
        os.dup2(null_device.fileno(), stream.fileno())
