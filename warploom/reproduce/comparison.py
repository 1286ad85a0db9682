"""Experiments that compare arms: train all, take means over seeds, check the claims, draw."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Arm, Claim, Experiment, Mean, Means, Measure, Outcome, Say, Size, Verdict
from warploom.reproduce.figures import bars
from warploom.reproduce.runs import run_all


class Comparison(Experiment):
    """Arms, measures and claims say it all; `draw` may be overridden."""

    @abstractmethod
    def arms(self, size: Size) -> Sequence[Arm]:
        """The competitors."""

    @abstractmethod
    def measures(self, size: Size) -> Sequence[Measure]:
        """What is measured after training; the first is the one that the figure shows."""

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """What must hold; not checked at the tiny size, which trains too little."""
        return ()

    def notes(self, size: Size) -> str:  # noqa: ARG002
        """How this size differs from the paper's setting."""
        return ""

    def draw(self, size: Size, means: Means, runs: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:  # noqa: ARG002
        """The figures."""
        return [bars(self.title, list(self.arms(size)), self.measures(size)[0], means, out / f"{self.name}.png")]

    def run(self, size: Size, seeds: int, out: Path, say: Say) -> Outcome:
        """Train every arm with every seed, and compare."""
        started = time.perf_counter()
        arms, measures = list(self.arms(size)), list(self.measures(size))
        runs = run_all(arms, measures, seeds, out, say, here=size == "tiny")
        means = means_of(runs)
        verdicts = [] if size == "tiny" else [Verdict(claim.text, claim.holds(means)) for claim in self.claims(size)]
        return Outcome(
            name=self.name,
            title=self.title,
            source=self.source,
            size=size,
            seeds=seeds,
            means={arm.key: means[arm.key] for arm in arms},
            paper={arm.key: arm.paper for arm in arms},
            verdicts=verdicts,
            runs=runs,
            notes=self.notes(size),
            figures=self.draw(size, means, runs, out),
            seconds=time.perf_counter() - started,
        )


def means_of(runs: Sequence[Mapping[str, Any]]) -> Means:
    """Means over seeds, by arm and measure."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for name, value in run["measures"].items():
            found.setdefault(run["key"], {}).setdefault(name, []).append(value)
    return {key: {name: Mean.of(values) for name, values in row.items()} for key, row in found.items()}
