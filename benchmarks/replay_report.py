"""What `benchmarks/replay.py` found, as a page and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

SIZES = {"5 KB": 5_000, "450 KB": 450_000, "4.5 MB": 4_500_000}
WRITERS = (1, 2, 4)
GOAL_RAW, GOAL_REVERB = 0.8, 3.0
Row = dict[str, Any]
Runs = dict[str, dict[int, float]]
"""MB/s by contender and repeat."""


def write(folder: Path, rows: Sequence[Row], contenders: Sequence[str], facts: Row) -> str:
    """Write replay.md and replay.json into `folder`; the page."""
    page = "\n".join(_page(rows, contenders, facts)) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "replay.json").write_text(json.dumps({"facts": facts, "rows": list(rows)}, indent=1) + "\n")
    (folder / "replay.md").write_text(page)
    return page


def _page(rows: Sequence[Row], contenders: Sequence[str], facts: Row) -> list[str]:
    command = f"python benchmarks/replay.py --repeats {facts['repeats']} --megabytes {facts['megabytes']}"
    command += "".join(f" --{name} …" for name in ("torchrl", "reverb") if any(c.startswith(name) for c in contenders))
    command += " --tcp" if facts["tcp"] else ""
    lines = [
        "# Replay throughput", "", "```sh", command, "```", "",
        f"{platform.machine()}, {os.cpu_count()} cores for servers and clients together, Python "
        f"{platform.python_version()}; {facts['seconds'] / 60:.1f} minutes, load average before it "
        f"{facts['load_before']}. MB/s: medians of {facts['repeats']} repeats in which all take turns; ratios: medians "
        "of the ratios within a repeat. What each does stands at the top of the script.",
        "",
        *([facts["note"], ""] if facts["note"] else []),
    ]  # fmt: skip
    for what, title in (("write", "Writes"), ("sample", "Samples, one reader")):
        lines += [f"## {title}", "", *_table(rows, what, contenders), ""]
    return [*lines, "## Goals", "", *_goals(rows, contenders)]


def _table(rows: Sequence[Row], what: str, contenders: Sequence[str]) -> list[str]:
    ratios = _ratios(contenders)
    head = ["chunk", "writers", *contenders, *ratios]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for chunk, writers in _cells(rows):
        runs = _runs(rows, what, chunk, writers)
        shown = [f"{median(runs[name].values()):,.0f}" for name in contenders]
        shown += [f"{_ratio(runs, *pair):.2f}" for pair in ratios.values()]
        lines.append("| " + " | ".join([chunk, str(writers), *shown]) + " |")
    return lines


def _ratios(contenders: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Title of each ratio, and whose it is: ours, and the other or (the faster of) those that begin so."""
    pairs = [
        ("chunks", "raw"),
        ("chunks", "piped"),
        ("warploom", "raw"),
        ("warploom", "torchrl"),
        ("warploom", "reverb"),
    ]
    return {
        f"{own} / {other}": (own, other)
        for own, other in pairs
        if own in contenders and any(name.startswith(other) for name in contenders)
    }


def _ratio(runs: Runs, own: str, other: str) -> float:
    others = [name for name in runs if name.startswith(other)]
    return median(runs[own][i] / max(runs[name][i] for name in others) for i in runs[own])


def _runs(rows: Sequence[Row], what: str, chunk: str, writers: int) -> Runs:
    runs: Runs = {}
    for row in rows:
        if (row["chunk"], row["writers"]) == (chunk, writers):
            runs.setdefault(row["contender"], {})[row["repeat"]] = row[what]
    return runs


def _cells(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return [(c, w) for c in SIZES for w in WRITERS if any((r["chunk"], r["writers"]) == (c, w) for r in rows)]


def _goals(rows: Sequence[Row], contenders: Sequence[str]) -> list[str]:
    def large(chunk: str) -> bool:
        return chunk != "5 KB"

    def any_size(_: str) -> bool:
        return True

    goals: list[tuple[str, str, str, str, float, Callable[[str], bool]]] = [
        (f"{what}s of {own} at least 80 % of raw, 450 KB and above", what, own, "raw", GOAL_RAW, large)
        for own in ("chunks", "warploom")
        for what in ("write", "sample")
    ]
    goals += [
        ("writes at least 3 times Reverb's faster way", "write", "warploom", "reverb", GOAL_REVERB, any_size),
        ("writes ahead of TorchRL's faster way", "write", "warploom", "torchrl", 1.0, any_size),
    ]
    lines = []
    for text, what, own, other, least, counts in goals:
        if (own, other) not in _ratios(contenders).values():
            continue
        found = {
            f"{chunk} x {writers}": _ratio(_runs(rows, what, chunk, writers), own, other)
            for chunk, writers in _cells(rows)
            if counts(chunk)
        }
        missed = [f"{cell}: {ratio:.2f}" for cell, ratio in found.items() if ratio < least]
        lines.append(f"- {text}: " + (f"missed at {', '.join(missed)}" if missed else "holds in every cell"))
    return lines
