"""Measuring a meta-state on held-out tasks, by the same `adapt` that serves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from warploom.algorithms.base import Algorithm
from warploom.seeding import derive
from warploom.spec import JobSpec
from warploom.types import MetaState, TaskRef

TASKS_AT_ONCE = 25


def held_out(spec: JobSpec) -> list[TaskRef]:
    """The tasks of a job's evaluations: the same at each, so that a curve compares like with like."""
    return [TaskRef(spec.evaluation.split, i, spec.training.seed) for i in range(spec.evaluation.tasks)]


def evaluate(
    algorithm: Algorithm[Any],
    meta: MetaState,
    refs: Sequence[TaskRef],
    *,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Query loss and accuracy after adaptation: mean over tasks with the half-width of its 95 % interval.

    Returns:
        `loss`, `loss_ci95`, `support_loss_before` (without adapting), `support_loss_auc` (mean over the steps),
        `tasks`, `diverged` (tasks whose loss is not finite; they are left out of the means of losses), and what else
        the family's `scores` tell: `accuracy`, `accuracy_ci95` in [0, 1] for classification, `nrmse` for regression.
        Without any finite loss there is no `loss`.
    """
    rows: list[dict[str, float]] = []
    before: list[float] = []
    area: list[float] = []
    size = TASKS_AT_ONCE if not algorithm.model.convolutional else 1
    for start in range(0, len(refs), size):
        group = list(refs[start : start + size])
        tasks = algorithm.family.sample(group).to(next(iter(meta.params.values())).device)
        seeds = [derive(seed, "evaluate", ref.split, ref.index) for ref in group]
        adapted = algorithm.adapt(meta, tasks, seeds=seeds, steps=steps, lr=lr)
        before += adapted.losses_TK[:, 0].tolist()
        area += adapted.losses_TK.mean(1).tolist()
        outputs_TQ = algorithm.predict(meta, adapted, tasks.query_x)
        rows += [algorithm.family.scores(outputs_TQ[t], tasks.query_y[t]) for t in range(tasks.count)]
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {
        "support_loss_before": before,
        "support_loss_auc": area,
    }
    losses = columns["loss"]
    found = {"tasks": float(len(rows)), "diverged": float(sum(not math.isfinite(value) for value in losses))}
    for name, values in columns.items():
        found |= _interval(name, [value for value in values if math.isfinite(value)])
    return found


def _interval(name: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    half = student_t_975(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {name: fmean(values), f"{name}_ci95": half}


def student_t_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, by the Cornish-Fisher expansion about the normal one.

    Within 0.5 % from 4 degrees of freedom on, and tabulated below that.

    Example:
        >>> round(student_t_975(9), 2)
        2.26
    """
    table = {1: 12.706, 2: 4.303, 3: 3.182}
    if degrees in table:
        return table[degrees]
    z, n = 1.959964, float(degrees)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2) + third
