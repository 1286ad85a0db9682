"""An outcome as files: NAME.md to read, NAME.json to compute with, beside the figures."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from warploom import __version__
from warploom.reproduce.base import Mean, Measure, Outcome


def write(outcome: Outcome, measures: list[Measure], out: Path) -> Path:
    """Write both files into `out`.

    Returns:
        The path of the readable one.
    """
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "name": outcome.name,
        "size": outcome.size,
        "seeds": outcome.seeds,
        "warploom": __version__,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "seconds": outcome.seconds,
        "means": {key: {name: asdict(mean) for name, mean in row.items()} for key, row in outcome.means.items()},
        "verdicts": [asdict(verdict) for verdict in outcome.verdicts],
        "runs": list(outcome.runs),
    }
    (out / f"{outcome.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    path = out / f"{outcome.name}.md"
    path.write_text(markdown(outcome, measures))
    return path


def markdown(outcome: Outcome, measures: list[Measure]) -> str:
    """The readable report."""
    by_name = {measure.name: measure for measure in measures}
    names = list(dict.fromkeys(name for row in outcome.means.values() for name in row))
    seeds = f"{outcome.seeds} seed{'s' if outcome.seeds != 1 else ''}"
    lines = [
        f"# {outcome.title}",
        "",
        f"{outcome.source}. Size `{outcome.size}`, {seeds}; {_cost(outcome)} on a machine of {os.cpu_count()} cores.",
        "",
        "```sh",
        f"warploom reproduce {outcome.name} --size {outcome.size} --seeds {outcome.seeds}",
        "```",
        "",
    ]
    if outcome.notes:
        lines += [outcome.notes, ""]
    if names:
        lines += _table(outcome, names, by_name)
    if outcome.verdicts:
        lines += ["## The paper's statements", ""]
        lines += [f"* {'holds' if v.holds else '**does not hold here**'}: {v.text}" for v in outcome.verdicts] + [""]
    for figure in outcome.figures:
        lines += [f"![{figure.stem}]({figure.name})", ""]
    return "\n".join(lines).rstrip() + "\n"


def _cost(outcome: Outcome) -> str:
    """Processor time of all runs, also of those that an interrupted call had finished; else the time that passed."""
    spent = [run["cpu_s"] for run in outcome.runs if "cpu_s" in run]
    if not spent:
        return f"{outcome.seconds / 60:.1f} minutes"
    some = "" if len(spent) == len(outcome.runs) else f" for {len(spent)} of {len(outcome.runs)} runs"
    return f"{sum(spent) / 60:.1f} minutes of processor time{some}"


def _table(outcome: Outcome, names: list[str], measures: dict[str, Measure]) -> list[str]:
    heads: list[str] = []
    for name in names:
        better = measures[name].better if name in measures else "higher"
        heads.append(f"{name} ({better} is better)")
        if any(name in outcome.paper.get(key, {}) for key in outcome.means):
            heads.append("the paper's")
    rows = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for key, row in outcome.means.items():
        cells = []
        for name in names:
            cells.append(shown(row[name], percent=name in measures and measures[name].percent) if name in row else "")
            if any(name in outcome.paper.get(other, {}) for other in outcome.means):
                cells.append(outcome.paper.get(key, {}).get(name, ""))
        rows.append(f"| {key.replace(' | ', ', ')} | {' | '.join(cells)} |")
    return [*rows, "", "Mean and 95 % interval over seeds." if outcome.seeds > 1 else "One seed: no interval.", ""]


def shown(mean: Mean, *, percent: bool) -> str:
    """A mean as text.

    Example:
        >>> shown(Mean(0.8123, 0.01, 3), percent=True)
        '81.2 ± 1.0 %'
    """
    if percent:
        text = f"{100 * mean.value:.1f}"
        return f"{text} ± {100 * mean.half:.1f} %" if mean.seeds > 1 else f"{text} %"
    text = f"{mean.value:.4g}"
    return f"{text} ± {mean.half:.2g}" if mean.seeds > 1 else text
