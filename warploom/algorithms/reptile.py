"""Reptile: move the initialisation towards where tasks end.

Symbols: φ the initialisation, φ̃ the parameters after K inner steps from φ, ε the outer step size.

    φ ← φ + ε (1/n) Σ_tasks (φ̃ − φ)

The gradient that a task hands over is φ − φ̃, divided by nothing: with `outer` sgd, `outer_lr` is ε itself. Under
SGD with step size α it is α times what the paper writes as g_Reptile.
Source: Nichol, Achiam, Schulman, 2018, arXiv:1803.02999, Algorithm 2 (batched), section 3 for Adam inside.

Departure: batches are drawn anew at each step, without replacement within a batch; the authors go through a shuffled
support set before they shuffle it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from warploom.algorithms.configs.reptile import ReptileConfig
from warploom.algorithms.ready import Ready
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors


class Reptile(Ready[ReptileConfig]):
    """The mean difference between where tasks start and where they end; memory flat in steps."""

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """φ − φ̃ for each task."""
        start_T = first_T = None
        end_T: Tensors = {}
        last_T = torch.empty(0)
        for step in self._path(meta, tasks, self._batches(tasks, seeds), None, None):
            if start_T is None:
                start_T, first_T = step.theta_T, step.loss_T
            end_T, last_T = step.theta_T, step.loss_T
        assert start_T is not None
        assert first_T is not None
        gradient_T = {name: value - end_T[name] for name, value in start_T.items()}
        return gradient_T, {"support_loss_first": first_T, "support_loss": last_T}

    def outer(self, version: int = 0) -> Outer:
        """ε, which falls linearly to nothing over `anneal_rounds`."""
        config = self.config
        left = 1.0 if config.anneal_rounds is None else max(0.0, 1.0 - version / config.anneal_rounds)
        rates = {name: left * config.outer_lr for name in self.model.roles if name in self.adaptable}
        return Outer(config.outer, rates, config.clip_norm)
