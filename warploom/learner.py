"""The learner side of meta-training: take experience from the buffer, move the meta-parameters, publish.

A round is: sample → minibatches → meta-gradient → outer step, then version + 1. The same code runs in one process
(`warploom.local`), in a Ray actor, and in each worker of a data-parallel group: there every learner holds the same
state, works on its share of each minibatch, and `combine` joins the shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch

from warploom.algorithms.base import Algorithm
from warploom.errors import TrainingFailed
from warploom.guard import job_code
from warploom.outer import OuterState, outer_step
from warploom.seeding import derive
from warploom.types import Experience, Gradient, MetaState, Tensors

Combine = Callable[[Gradient], Tensors]
MAX_BAD = 20
STATS_MOMENTUM = 0.1


@dataclass(frozen=True, slots=True)
class LearnerState:
    """All that a learner must remember between rounds; what a checkpoint holds.

    Args:
        meta: the meta-state.
        outer: the outer optimiser's.
        dropped: meta-gradients that were not finite and were dropped.
        bad_in_a_row: those since the last good one.
    """

    meta: MetaState
    outer: OuterState = field(default_factory=OuterState)
    dropped: int = 0
    bad_in_a_row: int = 0


def alone(gradient: Gradient) -> Tensors:
    """The `combine` of a single learner."""
    return gradient.values


def share(batch: Sequence[Experience], rank: int, world: int) -> list[Experience]:
    """The part of a minibatch that learner `rank` of `world` works on."""
    return list(batch[rank::world])


def learn_round(
    algorithm: Algorithm[Any],
    state: LearnerState,
    experiences: Sequence[Experience],
    *,
    seed: int,
    scale: float = 1.0,
    rank: int = 0,
    world: int = 1,
    combine: Combine = alone,
    max_bad: int = MAX_BAD,
    dropped: Callable[[], None] = lambda: None,
) -> tuple[LearnerState, dict[str, float]]:
    """One round of the outer loop.

    Args:
        algorithm: says minibatches and meta-gradients.
        state: before the round.
        experiences: the sample, in the same order on every learner.
        seed: the job's; the round's chance comes from it and the version.
        scale: factor of all outer step sizes.
        rank, world: this learner's number among how many.
        combine: joins the learners' gradients by weighted mean.
        max_bad: so many non-finite meta-gradients in a row are too many.
        dropped: called for each that is dropped, the one too many included.

    Returns:
        The state after the round (version + 1) and metrics to show.

    Raises:
        TrainingFailed: too many non-finite meta-gradients in a row.
    """
    started = time.perf_counter()
    outer = algorithm.outer(state.meta.version)
    outer = replace(outer, rates={name: scale * rate for name, rate in outer.rates.items()})
    round_seed = derive(seed, "round", state.meta.version)
    updates, before = 0, state.dropped
    for batch in algorithm.minibatches(experiences, seed=round_seed):
        own = share(batch, rank, world)
        with job_code(f"the meta-gradient of round {state.meta.version}"):
            gradient = weighted_gradient(algorithm, state.meta, own, seed=round_seed)
        values = combine(gradient)
        if not values:
            continue
        if not _finite(values):
            state = _drop(state, max_bad, dropped)
            continue
        params, optimiser = outer_step(outer, state.outer, state.meta.params, values)
        state = replace(state, meta=replace(state.meta, params=params), outer=optimiser, bad_in_a_row=0)
        updates += 1
    if not updates and state.dropped == before and _all_diverged(experiences):
        state = _drop(state, max_bad, dropped)
    meta = replace(state.meta, version=state.meta.version + 1, stats=_running(state.meta.stats, experiences))
    metrics = _metrics(experiences) | {"updates": float(updates), "learn_s": time.perf_counter() - started}
    return replace(state, meta=meta), metrics


def _drop(state: LearnerState, max_bad: int, dropped: Callable[[], None]) -> LearnerState:
    """Count one dropped meta-gradient.

    Raises:
        TrainingFailed: it is one too many.
    """
    dropped()
    state = replace(state, dropped=state.dropped + 1, bad_in_a_row=state.bad_in_a_row + 1)
    if state.bad_in_a_row >= max_bad:
        raise TrainingFailed(
            f"{state.bad_in_a_row} meta-gradients in a row were not finite, the last in round {state.meta.version}; "
            "a smaller inner_lr, warp_lr or init_lr, or clip_norm, may help",
            field="/training/max_bad_updates",
            rule=f"fewer than {max_bad} in a row",
            value=state.bad_in_a_row,
        )
    return state


def _all_diverged(experiences: Sequence[Experience]) -> bool:
    """Whether no task of the round taught anything, because its numbers were not finite."""
    return bool(experiences) and all(experience.metrics.get("diverged") for experience in experiences)


def weighted_gradient(
    algorithm: Algorithm[Any], meta: MetaState, batch: Sequence[Experience], *, seed: int
) -> Gradient:
    """Σ w_i g_i / n over the n samples of a batch, where w_i is the weight of the experience that sample i is of."""
    groups: dict[float, list[Experience]] = {}
    for experience in batch:
        groups.setdefault(experience.weight, []).append(experience)
    found = [(weight, algorithm.meta_gradient(meta, own, seed=seed)) for weight, own in groups.items()]
    if all(weight == 1.0 for weight, _ in found):
        return found[0][1] if found else Gradient({}, 0.0)
    found = [(weight, gradient) for weight, gradient in found if gradient.values]
    count = sum(gradient.weight for _, gradient in found)
    names = dict.fromkeys(name for _, gradient in found for name in gradient.values)
    values = {
        name: sum(
            (weight * g.weight / count * g.values[name] for weight, g in found if name in g.values),
            start=torch.zeros(()),
        )
        for name in names
    }
    return Gradient(values, count)


def _finite(values: Mapping[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values.values())


def _running(stats: Tensors, experiences: Sequence[Experience]) -> Tensors:
    """Exponential moving average of the tasks' statistics, one step per round."""
    seen = [experience.stats for experience in experiences if experience.stats]
    if not stats or not seen:
        return stats
    return {
        name: value + STATS_MOMENTUM * (torch.stack([s[name].to(value) for s in seen]).mean(0) - value)
        for name, value in stats.items()
    }


def _metrics(experiences: Sequence[Experience]) -> dict[str, float]:
    """Means over the tasks; a metric that is not finite in some task is left out of its mean."""
    names = sorted({name for experience in experiences for name in experience.metrics})
    found = {}
    for name in names:
        values = [e.metrics[name] for e in experiences if name in e.metrics and abs(e.metrics[name]) < float("inf")]
        if values:
            found[name] = fmean(values)
    return found
