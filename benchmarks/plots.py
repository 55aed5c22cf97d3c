"""The results as pictures (SVG), for benchmarks/results and for the documentation."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "1", "svg.fonttype": "none", "font.size": 9, "axes.axisbelow": True}

from matplotlib import pyplot as plt  # noqa: E402

OURS, OTHERS, LIMIT = "#3f51b5", "#b0b4c4", "#212121"
Results = Mapping[str, Any]


def _color(name: str) -> str:
    if name.startswith("this package"):
        return OURS
    return LIMIT if name.startswith(("bare", "empty", "unprotected")) else OTHERS


def _bars(values: Mapping[str, float], title: str, unit: str, *, log: bool = False) -> Any:
    figure, axes = plt.subplots(figsize=(7.2, 0.6 + 0.32 * len(values)))
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names], color=[_color(name) for name in names])
    axes.bar_label(drawn, labels=[f" {values[name]:.3g}" for name in names])
    axes.set(title=title, xlabel=unit)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.3)
    if log:
        axes.set_xscale("log")
    return figure


def verification(results: Results) -> Any:
    """Everybody's ratio for the ordinary user token."""
    figures = results["verification"]["tokens"]["user, 0.9 kB"]
    ratios = {name: one["ratio"] for name, one in figures.items()}
    return _bars(ratios, "One user token verified", "times one bare RSA-2048 verification", log=True)


def where(results: Results) -> Any:
    """Where the time of a verification goes."""
    figure, axes = plt.subplots(figsize=(7.2, 2.2))
    left = 0.0
    for number, (name, share) in enumerate(results["verification"]["bar"].items()):
        color = LIMIT if name == "RSA" else plt.get_cmap("tab10")(number)
        axes.barh(["user, 0.9 kB"], [share], left=left, color=color, label=f"{name} {share:.2f}")
        left += share
    axes.set(title="Where the time goes", xlabel="times one bare RSA-2048 verification")
    axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.35), frameon=False, fontsize=8)
    return figure


def curve(results: Results) -> Any:
    """How the cost grows with the token."""
    found = results["verification"]["curve"]
    sizes = [int(size) / 1000 for size in found]
    figure, axes = plt.subplots(figsize=(7.2, 2.8))
    for name, style in (("this package", "-o"), ("this package, token cache", "--o")):
        axes.plot(sizes, [one[name]["ratio"] for one in found.values()], style, color=OURS, label=name)
    axes.set(title="By the size of the token", xlabel="kB", ylabel="times one RSA", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def requests(results: Results) -> Any:
    """Requests per second of everybody."""
    found = results["requests"]["httptools"]
    rates = {name: one["rate"] for name, one in found.items()}
    return _bars(rates, "Requests over sockets: uvicorn, httptools, one worker", "requests per second")


def trouble(results: Results) -> Any:
    """The p99 of known callers in each phase."""
    found = results["trouble"]
    phases = ("quiet", "hang", "rotation", "flood")
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    width = 0.8 / len(found)
    for number, (name, one) in enumerate(found.items()):
        places = [place + number * width for place in range(len(phases))]
        heights = [one["p99"][phase] or 0 for phase in phases]
        drawn = axes.bar(places, heights, width, label=name)
        labels = ["" if one["p99"][phase] else "no answer" for phase in phases]
        axes.bar_label(drawn, labels=labels, rotation=90, fontsize=7)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(phases))], phases)
    axes.set(title="Known callers under trouble", ylabel="p99, ms", yscale="log")
    axes.legend(frameon=False, ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    return figure


def scale(results: Results) -> Any:
    """Cost against the smallest case."""
    figure, axes = plt.subplots(figsize=(7.2, 2.8))
    for name in ("keys", "audiences", "policies", "claims"):
        found = {label: one for label, one in results["scale"][name].items() if not label.startswith("bare")}
        counts = [int(label.split()[0]) + 1 for label in found]
        axes.plot(counts, [one["ratio"] for one in found.values()], "-o", label=name)
    axes.set(title="What grows", xlabel="how many (and one)", ylabel="times the smallest", xscale="log", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


PLOTS: dict[str, Callable[[Results], Any]] = {
    one.__name__: one for one in (verification, where, curve, requests, trouble, scale)
}


def draw(results: Results, *folders: Path) -> None:
    """Draw every picture into every folder."""
    for name, plot in PLOTS.items():
        figure = plot(results)
        for folder in folders:
            path = folder / f"performance-{name}.svg"
            figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
            path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
        plt.close(figure)
