"""Meta-SGD: the initialisation, and a learned step size for each single number that adapts.

Symbols: θ the initialisation, a the learned step sizes (of the same shape), α the `inner_lr` of the config, α' the
step size that an adaptation asks for (α unless it asks for another).

    θ ← θ − (α'/α) a ∘ ∇L_task(θ)

for SGD; any other inner optimiser takes (α'/α) a where it takes its step size. Both θ and a are learned by
backpropagation through the inner loop. With a fixed at α it is `maml`.
Source: Li, Zhou, Chen, Li, 2017, arXiv:1707.09835, Algorithm 1.

Departures: any number of steps, where the paper takes one; a starts at α throughout, where the paper draws it at
random; α' scales a, so that a request can still ask for smaller steps. As in the paper, an element of a may become
negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from warploom.algorithms.configs.meta_sgd import MetaSGDConfig
from warploom.algorithms.unrolled import Unrolled
from warploom.optim.base import Settings
from warploom.outer import Outer
from warploom.types import Tensors

PREFIX = "lr:"


class MetaSGD(Unrolled[MetaSGDConfig]):
    """Step sizes `lr:<parameter>`, each of the parameter's shape."""

    def also_learned(self, params: Tensors, seed: int) -> Tensors:  # noqa: ARG002
        """a = α."""
        alpha = self.config.inner_lr
        return {f"{PREFIX}{name}": torch.full_like(params[name], alpha) for name in self._adapted()}

    def inner_settings(self, learned: Tensors, k: int, lr: Tensor) -> Settings:
        """(α'/α) a."""
        ratio = lr / self.config.inner_lr
        rates = {name: ratio * learned[f"{PREFIX}{name}"] for name in self._adapted()}
        return {**super().inner_settings(learned, k, lr), "lr": rates}

    def learns(self) -> list[str]:
        """The model's parameters and, unless they stay, the step sizes."""
        return super().learns() + ([f"{PREFIX}{name}" for name in self._adapted()] if self.config.rates_lr else [])

    def outer(self, version: int = 0) -> Outer:
        """β, and the outer step size of a."""
        plain, config = super().outer(version), self.config
        rates = {name: config.rates_lr if name.startswith(PREFIX) else rate for name, rate in plain.rates.items()}
        return Outer(plain.kind, rates, plain.clip_norm)

    def _adapted(self) -> list[str]:
        return [name for name in self.model.roles if name in self.adaptable]
