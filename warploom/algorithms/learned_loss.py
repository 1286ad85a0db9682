"""Learned loss (ML3): adaptation descends a small net that looks at predictions and targets.

Symbols: M_ω the loss net with weights ω, f_θ(x) a prediction, y its target, L the family's own loss.

    θ ← θ − α ∇θ [ L(θ) + mean M_ω(f_θ(x), y) ],    M_ω(a, b) = softplus(net([a, b]))

with `base` task, and M_ω alone with `base` none. M_ω is applied to each output by itself: to (value, target) in
regression; to (probability, 1 if the class is right else 0) in classification, summed over classes. ω, and the
initialisation if it is learned, follow the gradient of the family's own loss of the queries
(`warploom.algorithms.windows`). Losses that are reported along the path are the family's own, too.
Source: Bechtle et al., ML3, 2019, arXiv:1906.05374; sizes of the net from its sine experiment.

Departures: `base` task is ours: the last layer starts at zero, so that adaptation starts as the plain one; the paper
has `base` none. The net takes no bias and no other input than the two, as in the authors' sine experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from warploom.algorithms.configs.learned_loss import LearnedLossConfig
from warploom.algorithms.windows import Windowed
from warploom.errors import UnfitPair
from warploom.functional import forward, task_loss
from warploom.models.base import Model, activation
from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.types import Tensors

PREFIX = "loss:"


class LearnedLoss(Windowed[LearnedLossConfig]):
    """Weights `loss:<layer>`, each [out, in], of a net from (prediction, target) to a loss.

    Raises:
        UnfitPair: the family has a loss of its own making, which is no function of single outputs and targets.
    """

    def __init__(self, config: LearnedLossConfig, model: Model, family: TaskFamily[Any]) -> None:
        super().__init__(config, model, family)
        self._act = activation(config.activation)
        if type(family).loss is not TaskFamily.loss:
            raise UnfitPair(
                f"algorithm 'learned-loss' {config.no_pairs(family.config)}",
                field="/task",
                rule="cross-entropy or mean squared error",
                value=family.config.name,
            )

    def also_learned(self, params: Tensors, seed: int) -> Tensors:
        """Random weights for ReLU nets (He et al. 2015); the last layer zero with `base` task."""
        gen = generator(seed, "loss net")
        like = next(iter(params.values()))
        sizes = (2, *self.config.hidden, 1)
        found: Tensors = {}
        for name, wide, out in zip(self.extras(), sizes, sizes[1:], strict=False):
            found[name] = torch.randn(out, wide, generator=gen).to(like.dtype) * (2 / wide) ** 0.5
        if self.config.base == "task":
            found[name] = torch.zeros_like(found[name])
        return found

    def support_loss(
        self, learned: Tensors, theta: Tensors, x_B: Tensor, y_B: Tensor, stats: Mapping[str, Tensor]
    ) -> Tensor:
        """The value of the family's loss with the slope of the learned one."""
        outputs_B = forward(self.model, {**self.fixed(learned), **theta}, x_B, stats)
        own = task_loss(self.model.kind, outputs_B, y_B)
        taught = self.loss_net(learned, outputs_B, y_B)
        if self.config.base == "task":
            taught = taught + own
        return taught + (own - taught).detach()

    def loss_net(self, learned: Tensors, outputs_B: Tensor, y_B: Tensor) -> Tensor:
        """Mean M_ω over the examples of a batch: a scalar.

        Args:
            learned: ω among the meta-parameters.
            outputs_B: [B, outputs] values or logits.
            y_B: [B, outputs] targets, or [B] int64 classes.
        """
        targets_B = y_B
        if self.model.kind == "classification":
            outputs_B = outputs_B.softmax(-1)
            classes = torch.arange(outputs_B.shape[-1], device=y_B.device)
            targets_B = (y_B.unsqueeze(-1) == classes).to(outputs_B)
        h = torch.stack([outputs_B, targets_B], -1)
        *hidden, last = self.extras()
        for name in hidden:
            h = self._act(h @ learned[name].T)
        each_B = F.softplus(h @ learned[last].T).squeeze(-1)
        return each_B.sum(-1).mean() if self.model.kind == "classification" else each_B.mean()

    def extra_lr(self) -> float:
        """The step size of ω."""
        return self.config.loss_lr

    def extras(self) -> list[str]:
        """The layers of the loss net, in order."""
        return [f"{PREFIX}{i}" for i in range(len(self.config.hidden) + 1)]
