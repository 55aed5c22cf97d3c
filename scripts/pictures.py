"""Draw the pictures of the documentation, each for a light and for a dark page.

python scripts/pictures.py            write them to docs/assets
python scripts/pictures.py --check    exit with 1 if a picture is not what this script draws
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs/assets"
WIDTH = 680
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
LINE_HEIGHT = 22


class Colours(NamedTuple):
    """The colours of one scheme; the page is the background."""

    ink: str
    quiet: str
    fill: str
    accent: str
    soft: str
    good: str
    bad: str


SCHEMES = {
    "light": Colours("#1f2430", "#5b6472", "#ffffff", "#4051b5", "#e8eafc", "#17754a", "#b3261e"),
    "dark": Colours("#e8eaf0", "#a5adba", "#2b2e3d", "#9fb0ff", "#343a5e", "#6fd6a2", "#ff9a92"),
}


class Drawing:
    """Collects the elements of a picture."""

    def __init__(self, colours: Colours, height: int, title: str) -> None:
        self.colours, self.height, self.title = colours, height, title
        self.elements: list[str] = []

    def text(self, x: float, y: float, words: str, *, size: int = 17, colour: str = "", anchor: str = "middle") -> None:
        """Write one line; a word in backticks is code."""
        spans = re.split(r"`([^`]*)`", words)
        written = "".join(
            f'<tspan font-family="ui-monospace, monospace" font-size="{size - 1}">{escape(span)}</tspan>'
            if number % 2
            else escape(span)
            for number, span in enumerate(spans)
        )
        colour = colour or self.colours.ink
        self.elements.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{written}</text>'
        )

    def box(self, left: float, top: float, width: float, height: float, *lines: str, strong: bool = False) -> None:
        """Draw a box with lines of text in its middle, the first one as its name."""
        colours = self.colours
        self.elements.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8"'
            f' fill="{colours.soft if strong else colours.fill}"'
            f' stroke="{colours.accent if strong else colours.quiet}" stroke-width="{2 if strong else 1.5}"/>'
        )
        first = top + height / 2 - (len(lines) - 1) * LINE_HEIGHT / 2 + 6
        for number, line in enumerate(lines):
            colour = colours.quiet if number else ""
            self.text(left + width / 2, first + number * LINE_HEIGHT, line, size=15 if number else 18, colour=colour)

    def connect(self, points: Iterable[tuple[float, float]], colour: str = "", *, dashed: bool = False) -> None:
        """Draw a line through points, with a head at the last one."""
        colour = colour or self.colours.accent
        (before_x, before_y), (x, y) = (path := list(points))[-2:]
        along = " ".join(f"{px},{py}" for px, py in path)
        dashes = ' stroke-dasharray="6 5"' if dashed else ""
        self.elements.append(f'<polyline points="{along}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        back_x, back_y = (0 if x == before_x else (-9 if x > before_x else 9)), (0 if y == before_y else -9)
        if y < before_y:
            back_y = 9
        side_x, side_y = (0, 5) if back_x else (5, 0)
        corners = [(x, y), (x + back_x + side_x, y + back_y + side_y), (x + back_x - side_x, y + back_y - side_y)]
        self.elements.append(f'<polygon points="{" ".join(f"{px},{py}" for px, py in corners)}" fill="{colour}"/>')

    def bar(self, left: float, top: float, width: float, colour: str, words: str = "", *, faint: bool = False) -> None:
        """Draw a bar of a timeline."""
        opacity = ' fill-opacity="0.3"' if faint else ""
        self.elements.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="26" rx="4" fill="{colour}"{opacity}/>'
        )
        if words:
            ink = self.colours.ink if faint else self.colours.fill
            self.text(left + width / 2, top + 18, words, size=15, colour=ink)

    def line(self, x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> None:
        """Draw a thin line."""
        dashes = ' stroke-dasharray="3 4"' if dashed else ""
        self.elements.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{self.colours.quiet}" stroke-width="1.5"{dashes}/>'
        )

    def svg(self) -> str:
        """Return the file."""
        body = "\n".join(self.elements)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}"'
            f' font-family="{FONT}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n{body}\n</svg>\n"
        )


def request_way(colours: Colours) -> Drawing:
    """Draw the way of a request: client, Access, app, and the keys."""
    drawing = Drawing(colours, 330, "The way of a request through Cloudflare Access to the app")
    drawing.box(5, 60, 140, 90, "Client", "browser, service,", "agent")
    drawing.box(255, 60, 150, 90, "Access", "logs in, decides,", "signs a token")
    drawing.box(515, 60, 160, 90, "Your app", "verifies the token", "of each request", strong=True)
    drawing.connect([(145, 105), (253, 105)])
    drawing.text(199, 93, "request", size=16, colour=colours.quiet)
    drawing.connect([(405, 105), (513, 105)])
    drawing.text(459, 93, "+ token", size=16, colour=colours.accent)
    drawing.box(255, 205, 150, 62, "Public keys", "`…/access/certs`")
    drawing.line(330, 150, 330, 205)
    drawing.connect([(555, 150), (555, 236), (407, 236)], dashed=True)
    drawing.text(480, 226, "in background", size=15, colour=colours.quiet)
    drawing.box(5, 205, 140, 62, "Any client", "direct to the app")
    drawing.connect([(75, 267), (75, 305), (635, 305), (635, 152)], colours.bad)
    drawing.text(355, 296, "no valid token: 401", size=16, colour=colours.bad)
    drawing.text(675, 42, "your handler gets a typed caller", size=16, colour=colours.good, anchor="end")
    return drawing


def key_rotation(colours: Colours) -> Drawing:
    """Draw the keys over weeks, and what the app does at a rotation and in an outage."""
    drawing = Drawing(colours, 560, "The keys of a team over time")
    _draw_weeks(drawing)
    _draw_rotation(drawing)
    _draw_outage(drawing)
    return drawing


def _draw_weeks(drawing: Drawing) -> None:
    colours, week, left = drawing.colours, 40, 70
    drawing.text(5, 24, "The keys that the team publishes", anchor="start", size=18)
    for number, name in enumerate("ABC"):
        begin, top = left + number * 6 * week, 48 + number * 34
        signing = min(6 * week, WIDTH - 5 - begin)
        drawing.text(
            5 if not number else begin - 10, top + 18, f"key {name}", anchor="end" if number else "start", size=16
        )
        ends = begin + signing + week < WIDTH  # the last one ends beyond the picture
        drawing.bar(begin, top, signing, colours.accent, "signs new tokens" if ends else "signs")
        if ends:
            drawing.bar(begin + signing, top, week, colours.accent, faint=True)
        if not number:
            drawing.text(
                begin + signing + week + 8,
                top + 18,
                "valid for 7 days more",
                anchor="start",
                size=15,
                colour=colours.quiet,
            )
    drawing.line(left, 156, WIDTH - 5, 156)
    for weeks in (0, 6, 12):
        drawing.line(left + weeks * week, 150, left + weeks * week, 162)
        label = "weeks: 0" if not weeks else f"{weeks}: rotation"
        drawing.text(left + weeks * week, 180, label, size=15, colour=colours.quiet)


def _draw_rotation(drawing: Drawing) -> None:
    colours = drawing.colours
    drawing.text(5, 226, "The app at a rotation", anchor="start", size=18)
    drawing.line(20, 290, WIDTH - 5, 290)
    steps = [
        (60, "refresh", "every 10 min"),
        (200, "rotation", "at Cloudflare"),
        (345, "first token of", "the new key: 1 fetch"),
        (485, "accepted", "in 0.2 s"),
        (610, "refresh", "every 10 min"),
    ]
    for x, first, second in steps:
        drawing.elements.append(f'<circle cx="{x}" cy="290" r="6" fill="{colours.accent}"/>')
        drawing.text(x, 268, first, size=15)
        drawing.text(x, 318, second, size=15, colour=colours.quiet)
    drawing.text(
        5,
        352,
        "Callers with a known key notice nothing at any of these points.",
        anchor="start",
        size=15,
        colour=colours.quiet,
    )


def _draw_outage(drawing: Drawing) -> None:
    colours = drawing.colours
    drawing.text(5, 400, "The app while the keys cannot be fetched", anchor="start", size=18)
    drawing.bar(20, 420, 130, colours.good, "ok")
    drawing.bar(150, 420, 350, colours.accent, "degraded: the last keys stay in use")
    drawing.bar(500, 420, 175, colours.bad, "expired: 503")
    for x, words in ((20, "last fetch"), (150, "30 min"), (500, "24 h")):
        drawing.line(x, 446, x, 458)
        drawing.text(
            x, 476, words, size=15, colour=colours.quiet, anchor="start" if words == "last fetch" else "middle"
        )
    drawing.text(
        5,
        512,
        "A key that is no longer published is removed when a second fetch, 30 s later,",
        anchor="start",
        size=15,
        colour=colours.quiet,
    )
    drawing.text(5, 534, "confirms it.", anchor="start", size=15, colour=colours.quiet)


def layers(colours: Colours) -> Drawing:
    """Draw the layers that import-linter checks; a module imports from rows below its own alone."""
    rows = declared_layers()
    drawing = Drawing(colours, 32 * len(rows) + 10, "The layers of the package, from the top to the bottom")
    for number, modules in enumerate(rows):
        _draw_row(drawing, 5 + 32 * number, modules)
    return drawing


def _draw_row(drawing: Drawing, top: float, modules: list[str]) -> None:
    colours, width = drawing.colours, (WIDTH - 10 - 8 * (len(modules) - 1)) / len(modules)
    for number, module in enumerate(modules):
        left, public = 5 + number * (width + 8), not module.startswith("_")
        drawing.elements.append(
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="26" rx="5"'
            f' fill="{colours.soft if public else colours.fill}"'
            f' stroke="{colours.accent if public else colours.quiet}" stroke-width="1"/>'
        )
        drawing.text(round(left + width / 2, 1), top + 18, f"`{module}`", size=16)


def declared_layers() -> list[list[str]]:
    """Return the modules of each layer, from the top to the bottom, as `pyproject.toml` lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = next(each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    return [re.findall(r"[\w.]+", layer) for layer in contract["layers"] if not layer.startswith("(")]


PICTURES: dict[str, Callable[[Colours], Drawing]] = {
    "request-way": request_way,
    "key-rotation": key_rotation,
    "layers": layers,
}


def drawn() -> dict[Path, str]:
    """Return what each file contains."""
    return {
        ASSETS / f"{name}-{scheme}.svg": draw(colours).svg()
        for name, draw in PICTURES.items()
        for scheme, colours in SCHEMES.items()
    }


def main(arguments: list[str]) -> int:
    """Write the pictures, or check them."""
    files = drawn()
    if arguments == ["--check"]:
        stale = [path.name for path, text in files.items() if not path.is_file() or path.read_text() != text]
        if stale:
            print(f"run python scripts/pictures.py, since these pictures are stale: {', '.join(stale)}")
        return 1 if stale else 0
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
