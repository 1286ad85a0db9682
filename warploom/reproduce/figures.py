"""The pictures. matplotlib is an extra (`pip install warploom[figures]`), loaded when a picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.errors import Unavailable
from warploom.reproduce.base import Arm, Means, Measure

STATISTICS = ("centre", "correlation", "spread")  # of `warploom.reproduce.activations`, which loads torch


def plots() -> Any:
    """matplotlib's pyplot, drawing to files.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise Unavailable("figures need matplotlib: pip install 'warploom[figures]'") from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> Path:
    """Write a figure and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plots().close(figure)
    return path


def bars(title: str, arms: Sequence[Arm], measure: Measure, means: Means, path: Path) -> Path:
    """One bar for each arm with its 95 % interval."""
    plt = plots()
    factor = 100 if measure.percent else 1
    figure, axes = plt.subplots(figsize=(max(5, 0.9 * len(arms) + 2), 4))
    heights = [factor * means[arm.key][measure.name].value for arm in arms]
    halves = [factor * means[arm.key][measure.name].half for arm in arms]
    axes.bar(range(len(arms)), heights, yerr=halves, capsize=4, color="#4a78b5")
    axes.set_xticks(range(len(arms)), [arm.key for arm in arms], rotation=30, ha="right")
    axes.set_ylabel(f"{measure.name}{' [%]' if measure.percent else ''}")
    axes.set_title(title)
    axes.grid(axis="y", alpha=0.3)
    return save(figure, path)


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    labels: tuple[str, str],
    path: Path,
    *,
    log: str = "",
) -> Path:
    """Lines of (x, mean, half-width of the interval) by label.

    Args:
        log: "x", "y" or "xy" for logarithmic axes.
    """
    plt = plots()
    figure, axes = plt.subplots(figsize=(6.5, 4.2))
    for label, points in series.items():
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        (line,) = axes.plot(xs, ys, marker="o", markersize=3.5, label=label)
        if any(p[2] for p in points):
            low, high = [p[1] - p[2] for p in points], [p[1] + p[2] for p in points]
            axes.fill_between(xs, low, high, alpha=0.15, color=line.get_color())
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save(figure, path)


def before_and_after(runs: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Statistics of activations by layer, hollow before and filled behind each warp, means over seeds."""
    plt = plots()
    keys = list(dict.fromkeys(run["key"] for run in runs))
    figure, axes = plt.subplots(1, len(STATISTICS), figsize=(11, 3.8))
    for one, what in zip(axes, STATISTICS, strict=True):
        for i, key in enumerate(keys):
            found = [run["activations"] for run in runs if run["key"] == key]
            layers = list(found[0])
            for when, face in (("before", "none"), ("after", f"C{i}")):
                ys = [sum(row[layer][f"{what} {when}"] for row in found) / len(found) for layer in layers]
                one.plot(layers, ys, "o-", color=f"C{i}", markerfacecolor=face, label=f"{key}, {when}")
        one.set_title(what)
        one.set_ylim(bottom=0)
        one.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return save(figure, path)
