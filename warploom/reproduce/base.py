"""What an experiment is: arms that are compared, measures, claims that must hold, and the paper's own numbers.

Each arm is a job spec; it is run with several seeds and measured on held-out tasks after training. An experiment of
another shape (a picture of paths, a memory profile) overrides `Experiment.run`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from warploom.evaluation import student_t_975

Size = Literal["tiny", "cpu", "paper"]
SIZES: tuple[Size, ...] = ("tiny", "cpu", "paper")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Measure:
    """One measurement of a trained model.

    Args:
        name: how the results call it.
        metric: the key that evaluation gives (`accuracy`, `loss`, `nrmse`, `support_loss_auc`…).
        steps: inner steps; None for the job's own.
        tasks: held-out tasks; None for the job's own.
        better: which direction is better, for the table's arrow.
        percent: whether to show it as a percentage.
        adapt: an algorithm's document to adapt with in place of the arm's own, so that all arms are fine-tuned alike
            from what they learned.
    """

    name: str
    metric: str
    steps: int | None = None
    tasks: int | None = None
    better: Literal["higher", "lower"] = "higher"
    percent: bool = False
    adapt: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Arm:
    """One competitor.

    Args:
        label: its name in table and figure.
        spec: its job, as a JSON document.
        paper: published values by measure name, as text ("98.7 ± 0.4"); only numbers that were seen in print.
        group: the x position in a figure of several groups (the number of training tasks, say).
        activations: also measure activations around the warp layers.
        test_task: fields of the task that differ when the trained model is measured.
    """

    label: str
    spec: Mapping[str, Any]
    paper: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    activations: bool = False
    test_task: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Unique within the experiment."""
        return f"{self.label} | {self.group}" if self.group else self.label


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with the half-width of its 95 % interval (0 for a single seed)."""

    value: float
    half: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """From one value for each seed.

        Example:
            >>> round(Mean.of([1.0, 2.0, 3.0]).half, 2)
            2.48
        """
        n = len(values)
        half = student_t_975(n - 1) * stdev(values) / math.sqrt(n) if n > 1 else 0.0
        return cls(fmean(values), half, n)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and whether it holds here.

    Args:
        text: the statement.
        holds: from the means by arm key and measure name.
    """

    text: str
    holds: Callable[[Means], bool]


Means = dict[str, dict[str, Mean]]


@dataclass(frozen=True)
class Verdict:
    """A claim after the fact."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Outcome:
    """What an experiment gives.

    Args:
        name, title, source, size, seeds: of the experiment.
        means: by arm key and measure name.
        paper: published values by arm key and measure name.
        verdicts: the claims.
        runs: every run's own numbers, for the results file.
        notes: what a reader must know about the size that was run.
        figures: paths of the pictures, beside the results file.
        seconds: wall-clock time.
    """

    name: str
    title: str
    source: str
    size: Size
    seeds: int
    means: Means
    paper: Mapping[str, Mapping[str, str]]
    verdicts: Sequence[Verdict]
    runs: Sequence[Mapping[str, Any]]
    notes: str
    figures: Sequence[Path]
    seconds: float


class Experiment(ABC):
    """One experiment of the literature, in three sizes."""

    name: str
    title: str
    source: str

    @abstractmethod
    def run(self, size: Size, seeds: int, out: Path, say: Say) -> Outcome:
        """Run it and draw its figures into `out`.

        Args:
            size: tiny (seconds, for tests), cpu (two cores, at most half an hour), paper (the paper's own).
            seeds: how many seeds, from 0 on.
            out: folder for figures and for finished runs, which are not repeated.
            say: told a line at a time how it goes.
        """

    def measures(self, size: Size) -> Sequence[Measure]:  # noqa: ARG002
        """How the measures of the outcome are shown; those that are not named here are plain numbers."""
        return ()

    def default_seeds(self, size: Size) -> int:
        """How many seeds when the caller does not say."""
        return {"tiny": 1, "cpu": 3, "paper": 10}[size]
