"""WarpGrad online: the gradient of the warp, gathered while the tasks adapt.

At each θ_k of a path the gradient of Eq 11 (or 12) is added up and the inner step taken, and of all that only the sums
and the newest state are kept: memory does not grow with K. A task hands over one gradient, and the warp moves once for
each batch of tasks.
Source: Flennerhag et al., ICLR 2020, arXiv:1909.00025, Algorithm 1.

Departures: the step of the objective is the step of the path, on the same batch, which saves a gradient; the outer
batch is fresh. The mean over points is taken where the paper has a sum: the factor belongs to β.
Shape suffixes: T tasks, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic

from torch import Tensor

from warploom.algorithms.configs.warpgrad_online import WarpGradOnlineConfig
from warploom.algorithms.ready import Ready
from warploom.algorithms.warped import Start, Warped, WarpedAndStart, WarpT, maml_gradients
from warploom.functional import expand, over_tasks
from warploom.inner import InnerStep
from warploom.seeding import derive
from warploom.types import MetaState, Tasks, Tensors


@dataclass
class Mean:
    """The mean of gradients, of which only the sum is kept."""

    sum_T: Tensors = field(default_factory=dict)
    count: int = 0

    def add(self, gradient_T: Tensors) -> None:
        """One more."""
        self.sum_T = {n: self.sum_T[n] + g for n, g in gradient_T.items()} if self.count else gradient_T
        self.count += 1

    def take(self) -> Tensors:
        """The mean; it starts again from nothing."""
        mean_T = {name: value / self.count for name, value in self.sum_T.items()}
        self.sum_T, self.count = {}, 0
        return mean_T


class LiveWarp(Warped[WarpT], Generic[WarpT]):
    """A path whose points are learned from as they are visited."""

    def live(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int], psi_T: Tensors | None = None
    ) -> Iterator[tuple[InnerStep, Tensors]]:
        """Walk along the paths of T tasks, as `adapt` does.

        Args:
            meta: where adaptation starts.
            tasks: T training tasks.
            seeds: one per task.
            psi_T: a ψ for each task, [T, *shape], that may be changed in place from step to step; None for meta's.

        Yields:
            Each state before its step, with ∇ψ there, [T, *shape]; at points that do not count, and at the last state,
            there is none.
        """
        config, objective = self.config, self.objective(meta)
        vectorise = self._vectorise(tasks.support_x)
        psi = self.split(meta.params)[0]
        batches = self._batches(tasks, seeds)
        fresh = self._batches(tasks, [derive(seed, "outer") for seed in seeds])
        start = self.start(meta.params)
        theta_T = expand(start, tasks.count)
        state_T = expand(self.inner_state(meta.params, start), tasks.count)

        def each(fn: Callable[..., Any], *args: Any) -> Any:
            if psi_T is None:
                return over_tasks(partial(fn, psi), *args, vectorise=vectorise)
            return over_tasks(fn, psi_T, *args, vectorise=vectorise)

        for k in range(config.inner_steps):
            x_TA, y_TA = batches.next()
            gradient_T: Tensors = {}
            if k % config.record_every == 0:
                gradient_T, slope_T, value_T, *after = each(
                    partial(objective.visit, k=k), theta_T, state_T, x_TA, y_TA, *fresh.seen(k)
                )
            else:
                slope_T, value_T, *after = each(partial(objective.step, k=k), theta_T, state_T, x_TA, y_TA)
            yield InnerStep(k, theta_T, slope_T, value_T, state_T), gradient_T
            theta_T, state_T = after
        yield InnerStep(config.inner_steps, theta_T, {}, each(objective.loss, theta_T, *batches.next()), state_T), {}


class WarpGradOnline(Ready[WarpGradOnlineConfig], WarpedAndStart[WarpGradOnlineConfig], LiveWarp[WarpGradOnlineConfig]):
    """Algorithm 1: the mean gradient of all points of a task's path, and that of the initialisation."""

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """∇ψ of Eq 11 averaged over the path, and the gradient of the initialisation, for each task."""
        start, warp = Start(self.config.initialisation), Mean()
        losses: list[Tensor] = []
        for step, gradient_T in self.live(meta, tasks, seeds=seeds):
            start.add(step)
            if gradient_T:
                warp.add(gradient_T)
            losses = [*losses[:1], step.loss_T]
        gradients_T = start.gradient_T
        if self.config.initialisation == "maml":
            gradients_T = maml_gradients(self, meta, tasks, self._batches(tasks, seeds))
        return {**warp.take(), **gradients_T}, {"support_loss_first": losses[0], "support_loss": losses[-1]}
