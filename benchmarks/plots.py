"""The results as pictures (SVG), for the documentation."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
INK = "#7d8290"
"""The color of text and axes, legible on white and on black: the pictures have no background."""
mpl.rcParams |= {"svg.hashsalt": "1", "svg.fonttype": "none", "font.size": 9, "axes.axisbelow": True}
mpl.rcParams |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor"), INK)
mpl.rcParams |= dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK)
mpl.rcParams |= {"savefig.transparent": True, "legend.frameon": False}

from aims import EMPTY, KNOWN, NEW, PEERS, REMEMBERED, TOKEN, UNPROTECTED, VERIFIED  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402

OURS, OTHERS, LIMIT = "#5c6bc0", "#a3a8b8", "#e08a1e"
PHASES = {"quiet": "o", "hang": "s", "rotation": "D", "flood": "^"}
Results = Mapping[str, Any]


def _color(name: str) -> str:
    if name.startswith("this package"):
        return OURS
    return LIMIT if name in (UNPROTECTED, EMPTY) or name.startswith("bare") else OTHERS


def _bars(values: Mapping[str, float], title: str, unit: str, label: str) -> Any:
    """Draw bars from zero, each with its figure."""
    figure, axes = plt.subplots(figsize=(7.2, 0.6 + 0.32 * len(values)))
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names], color=[_color(name) for name in names])
    axes.bar_label(drawn, labels=[label.format(values[name]) for name in names], padding=3)
    axes.set(title=title, xlabel=unit)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.3)
    return figure


def verification(results: Results) -> Any:
    """Draw every contender's ratio for the ordinary user token."""
    figures = results["verification"]["tokens"][TOKEN]
    ratios = {name: one["ratio"] for name, one in figures.items()}
    return _bars(ratios, "One user token verified", "times one bare RSA-2048 verification", "{:.2f}")


def where(results: Results) -> Any:
    """Draw the steps of a verification."""
    figure, axes = plt.subplots(figsize=(7.2, 2.2))
    left = 0.0
    for number, (name, share) in enumerate(results["verification"]["bar"].items()):
        color = LIMIT if name == "RSA" else plt.get_cmap("tab10")(number)
        axes.barh([TOKEN], [share], left=left, color=color, label=f"{name} {share:.2f}")
        left += share
    axes.set(title="The steps of a verification", xlabel="times one bare RSA-2048 verification")
    axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.35), fontsize=8)
    return figure


def curve(results: Results) -> Any:
    """Draw how the time grows with the token."""
    found = results["verification"]["curve"]
    sizes = [int(size) / 1000 for size in found]
    figure, axes = plt.subplots(figsize=(7.2, 2.8))
    for name, style in ((VERIFIED, "-o"), (REMEMBERED, "--o")):
        axes.plot(sizes, [one[name]["ratio"] for one in found.values()], style, color=OURS, label=name)
    axes.set(title="By the size of the token", xlabel="kB", ylabel="times one RSA", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def requests(results: Results) -> Any:
    """Draw the requests per second of this package and its peers."""
    found = results["requests"]["httptools"]
    rates = {name: found[name]["rate"] for name in (UNPROTECTED, EMPTY, KNOWN, NEW, *PEERS) if name in found}
    return _bars(rates, "One worker of uvicorn, with httptools", "requests per second", "{:,.0f}")


def trouble(results: Results) -> Any:
    """Draw the p99 of known callers in each phase: points, since a logarithmic scale has no zero for bars."""
    found = results["trouble"]
    names = list(found)[::-1]
    figure, axes = plt.subplots(figsize=(7.2, 0.9 + 0.36 * len(names)))
    answered = [value for one in found.values() for value in one["p99"].values() if value is not None]
    beyond = 3 * max(answered)
    for number, (phase, marker) in enumerate(PHASES.items()):
        rows = [(row + 0.2 * (1.5 - number), found[name]["p99"][phase]) for row, name in enumerate(names)]
        color = plt.get_cmap("tab10")(number)
        passed = [(row, value) for row, value in rows if value is not None]
        axes.plot([value for _, value in passed], [row for row, _ in passed], marker, color=color, label=phase)
        for row, value in rows:
            if value is None:
                axes.text(beyond, row, f"no answer ({phase})", color=color, fontsize=8, va="center", ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(
        title="Known callers while something is wrong", xlabel="p99, ms", xscale="log", xlim=(min(answered) / 2, beyond)
    )
    axes.grid(axis="x", alpha=0.3)
    axes.legend(ncols=len(PHASES), fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.18))
    return figure


def scale(results: Results) -> Any:
    """Draw the time against the smallest case."""
    figure, axes = plt.subplots(figsize=(7.2, 2.8))
    for name in ("keys", "audiences", "policies", "claims"):
        found = {label: one for label, one in results["scale"][name].items() if not label.startswith("bare")}
        counts = [int(label.split()[0]) + 1 for label in found]
        axes.plot(counts, [one["ratio"] for one in found.values()], "-o", label=name)
    axes.set(title="What grows", xlabel="number, plus one", ylabel="times the smallest", xscale="log")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


PLOTS: dict[str, Callable[[Results], Any]] = {
    one.__name__: one for one in (verification, where, curve, requests, trouble, scale)
}


def draw(results: Results, folder: Path) -> None:
    """Draw every picture into this folder."""
    for name, plot in PLOTS.items():
        figure = plot(results)
        path = folder / f"performance-{name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
        path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
        plt.close(figure)
