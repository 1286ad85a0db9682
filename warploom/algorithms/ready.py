"""Algorithms whose meta-gradient is ready when a task is done: the rollout actor computes it, the learner averages.

Shape suffixes: T tasks, K inner steps, S support, Q query, B batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic

import torch
from torch import Tensor

from warploom.algorithms.base import Algorithm, ConfigT, mean_gradient
from warploom.types import Experience, Gradient, MetaState, Tasks, Tensors


class Ready(Algorithm[ConfigT], Generic[ConfigT]):
    """The base of algorithms that hand over one gradient for each task."""

    @abstractmethod
    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """The meta-gradient of each task.

        Args:
            meta: the meta-state.
            tasks: T training tasks, queries included.
            seeds: one per task.

        Returns:
            Gradients by name of the meta-parameter, each [T, *shape], and metrics to show, each [T]:
            `support_loss_first`, `support_loss` (after the last step) and `query_loss` where they are known.
        """

    def rollout(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> list[Experience]:
        """The gradient of each task; a task whose gradient is not finite teaches nothing and counts as diverged."""
        gradient_T, metrics_T = self.task_gradients(meta, tasks, seeds=seeds)
        stats_T: Tensors = {}
        if self.model.bn_mode == "running" and self.model.norms():
            stats_T = self.seen_stats(meta, tasks, seeds=seeds)
        sound_T = (
            torch.stack([g.reshape(tasks.count, -1).isfinite().all(1) for g in gradient_T.values()]).all(0).tolist()
        )
        return [
            Experience(
                ref=ref,
                version=meta.version,
                gradient={name: g[t].detach().clone() for name, g in gradient_T.items()} if sound_T[t] else {},
                stats={name: value[t] for name, value in stats_T.items()} if sound_T[t] else {},
                metrics={name: float(value[t]) for name, value in metrics_T.items()}
                | {"diverged": float(not sound_T[t])},
            )
            for t, ref in enumerate(tasks.refs)
        ]

    def seen_stats(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> Tensors:
        """The statistics of each task that the running ones move towards, each [T, ...] as in `MetaState.stats`."""
        adapted = self.adapt(meta, tasks, seeds=seeds)
        return self.task_stats(meta, adapted.params, self._batches(tasks, seeds).everything())

    def meta_gradient(self, meta: MetaState, experiences: Sequence[Experience], *, seed: int) -> Gradient:  # noqa: ARG002
        """The mean of the tasks' gradients."""
        return mean_gradient(experiences, next(iter(meta.params.values())).device)
