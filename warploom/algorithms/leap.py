"""Leap: the initialisation from which paths of adaptation are short.

Symbols: θ_0 the initialisation, θ_k the k-th state of a task's path, d(θ_0) the length or energy of the path on the
task's loss surface. Each task contributes its pull-forward gradient (`warploom.algorithms.leap_path`), gathered while
the path is walked: two states at a time are in memory, however many steps there are.
Source: Flennerhag et al., ICLR 2019, arXiv:1812.01054, Algorithm 1.

Departures: see `PathGradient`. Batches change from step to step, so that ΔL also holds the difference between
batches, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from warploom.algorithms.configs.leap import LeapConfig
from warploom.algorithms.leap_path import PathGradient
from warploom.algorithms.ready import Ready
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors


class Leap(Ready[LeapConfig]):
    """The mean over tasks of ∇d, for any inner optimiser."""

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """∇d of each task's path, and `path`: the length or energy itself."""
        config = self.config
        path = PathGradient(with_loss=config.loss_term, metric=config.metric, stabilise=config.stabilise)
        first_T = last_T = torch.empty(0)
        for step in self._path(meta, tasks, self._batches(tasks, seeds), None, None):
            path.add(step)
            first_T = step.loss_T if step.k == 0 else first_T
            last_T = step.loss_T
        return path.gradient_T, {"support_loss_first": first_T, "support_loss": last_T, "path": path.length_T}

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for the initialisation."""
        config = self.config
        rates = {name: config.outer_lr for name in self.model.roles if name in self.adaptable}
        return Outer(config.outer, rates, config.clip_norm)
