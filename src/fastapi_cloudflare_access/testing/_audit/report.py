"""The text of a failed audit."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing._audit.entries import Audit, Entry

HEADINGS = ("METHOD", "PATH", "WHO MAY ENTER")
MAX_ROWS = 50
"""Number of open routes that a failure shows."""


def check_listed(listed: Any) -> list[str]:
    """Return the listed paths, sorted.

    Raises:
        ConfigurationError: They are not a collection of paths.
    """
    if isinstance(listed, str) or not isinstance(listed, Collection):
        raise ConfigurationError('open must be a collection of paths: write open={"/healthz"}')
    items: list[Any] = [*listed]
    for item in items:
        if not isinstance(item, str) or not _is_path(item):
            raise ConfigurationError(
                f'open lists paths, such as "/healthz", "GET /healthz" or "WS /chat", not {item!r}'
            )
    return sorted(items)


def _is_path(item: str) -> bool:
    method, _, path = item.rpartition(" ")
    return "/" in path and (not method or method.isalpha())


def failure(audit: Audit, listed: Sequence[str]) -> str | None:
    """Return what is wrong, as a table and sentences; None if nothing is."""
    rows = open_entries(audit, listed)
    sentences = [*audit.problems, *unserved(audit, listed)]
    if not rows and not sentences:
        return None
    served = [item for item in listed if any(entry.is_named(item) for entry in audit.entries)]
    parts = [*([_open_routes(rows, served, len(audit.entries))] if rows else []), *sentences, *_notes(audit)]
    return "\n\n".join(parts)


def _notes(audit: Audit) -> Iterator[str]:
    """Yield what is no failure, in one paragraph."""
    noted = [entry for entry in audit.entries if entry.notes]
    lines = [f"  {entry.listing}  {note.what} → {note.advice}" for entry in noted[:MAX_ROWS] for note in entry.notes]
    if lines:
        yield "\n".join(["Of the routes that are protected (these are no failures):", "", *lines])


def open_entries(audit: Audit, listed: Sequence[str]) -> list[Entry]:
    """Return the entries that are open and not listed."""
    return [entry for entry in audit.entries if entry.is_open and not entry.is_listed(listed)]


def unserved(audit: Audit, listed: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each listed path that the app does not serve."""
    known = [*dict.fromkeys(entry.listing for entry in audit.entries)]
    for item in listed:
        if not any(entry.is_named(item) for entry in audit.entries):
            close = get_close_matches(item, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "remove it from open="
            yield f"open lists {item!r}, which the app does not serve: {advice}"


def _open_routes(rows: list[Entry], listed: Sequence[str], count: int) -> str:
    verb = "route is" if len(rows) == 1 else "routes are"
    shown = rows[:MAX_ROWS]
    lines = [f"{len(rows)} {verb} open to clients without a token, of {count}:", "", *_table(shown)]
    if len(rows) > MAX_ROWS:
        lines.append(f"  … and {len(rows) - MAX_ROWS} more")
    items = ", ".join(f'"{item}"' for item in sorted({*listed, *(row.listing for row in shown)}))
    return "\n".join([*lines, "", "If they must be open, list them:", "", f"  open={{{items}}}"])


def _table(rows: list[Entry]) -> Iterator[str]:
    """Yield the lines of the table; what to do follows the rows to which it applies."""
    table = [HEADINGS, *((row.shown_methods, row.path, f"{row.who}: {row.why}") for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    yield lines[0]
    for number, (line, row) in enumerate(zip(lines[1:], rows, strict=True), 1):
        yield line
        if number == len(rows) or rows[number].advice != row.advice:
            yield f"  {'':<{widths[0]}}  → {row.advice}"
