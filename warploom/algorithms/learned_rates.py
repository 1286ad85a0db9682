"""Learned rates: a step size for each parameter tensor (and each step), learned through the inner loop.

Symbols: α the step size of the config or of the request, m_i the learned factor of tensor i, θ_i that tensor.

    θ_i ← θ_i − α m_i ∇_i L_task(θ)

for SGD; any other inner optimiser takes α m_i where it takes α. Factors start at 1, where the inner loop is the plain
one. The objective is that of `warploom.algorithms.windows`.
Source: Grefenstette et al., 2019, arXiv:1910.01727, section 5.1.

Departures: a factor is learned, not the rate itself, so that one outer step size fits any α, and a request that asks
for another α scales all rates. A factor may become negative, as a rate may in the source.
"""

from __future__ import annotations

import torch
from torch import Tensor

from warploom.algorithms.configs.learned_rates import LearnedRatesConfig
from warploom.algorithms.windows import Windowed
from warploom.optim.base import Settings
from warploom.types import Tensors

PREFIX = "lr:"


class LearnedRates(Windowed[LearnedRatesConfig]):
    """Factors `lr:<parameter>`: scalars, or [K] with `per_step`; steps beyond K go on with the last."""

    def also_learned(self, params: Tensors, seed: int) -> Tensors:  # noqa: ARG002
        """Ones."""
        shape = (self.config.inner_steps,) if self.config.per_step else ()
        like = next(iter(params.values()))
        return {name: torch.ones(shape, dtype=like.dtype) for name in self.extras()}

    def inner_settings(self, learned: Tensors, k: int, lr: Tensor) -> Settings:
        """α m_i for each parameter."""
        factors = {name: learned[PREFIX + name] for name in self.adapts()}
        if self.config.per_step:
            factors = {name: m_K[min(k, m_K.shape[0] - 1)] for name, m_K in factors.items()}
        return {**super().inner_settings(learned, k, lr), "lr": {name: lr * m for name, m in factors.items()}}

    def extra_lr(self) -> float:
        """The step size of the factors."""
        return self.config.rates_lr

    def extras(self) -> list[str]:
        """One factor for each adaptable parameter."""
        return [PREFIX + name for name in self.model.roles if name in self.adaptable]
