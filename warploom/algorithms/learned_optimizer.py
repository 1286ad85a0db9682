"""Learned optimiser: a small net, applied to each coordinate, that bends the step of an ordinary optimiser.

Symbols: u the step of the configured inner optimiser (−α g for SGD), g the gradient, m_β its moving averages, α the
step size, ω the net's weights, (a, b) its two outputs for one coordinate.

    (a, b) = net_ω(features(g), features(m_β)…),    θ ← θ + exp(a) u − α b

The net's last layer starts at zero, so that at first the step is u itself. `cell` mlp has one hidden layer; lstm keeps
a hidden state for each coordinate along the path. Features of a number v are (log|v| / p, sign v) where |v| ≥ e^−p, and
(−1, e^p v) below. The objective is that of `warploom.algorithms.windows`, truncated by `window`.
Shape suffixes: F features, H hidden, after the shape of a parameter.
Source: Andrychowicz et al., 2016, arXiv:1606.04474 (coordinatewise LSTM, features, gradients as constants); averages of
several time scales and the log-scaled factor as in Wichrowska et al., 2017, arXiv:1703.04813, in a simpler form.

Departures: both outputs bend an ordinary step, where the source emits the step. Queries count, not the training loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from warploom.algorithms.configs.learned_optimizer import LearnedOptimizerConfig
from warploom.algorithms.windows import Windowed
from warploom.models.base import Model
from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.types import Tensors

PREFIX, OWN = "opt:", "learned/"
P = 10.0  # p of the source


class LearnedOptimizer(Windowed[LearnedOptimizerConfig]):
    """Weights `opt:…`; a state `learned/…` beside that of the configured optimiser."""

    def __init__(self, config: LearnedOptimizerConfig, model: Model, family: TaskFamily[Any]) -> None:
        super().__init__(config, model, family)
        self.first_order = config.first_order

    def also_learned(self, params: Tensors, seed: int) -> Tensors:
        """Random weights of variance 1/fan-in; biases and the last layer zero."""
        gen = generator(seed, "optimiser net")
        like = next(iter(params.values()))
        found: Tensors = {}
        for name, shape in self._shapes().items():
            if len(shape) == 1 or name == "out":
                found[PREFIX + name] = torch.zeros(shape, dtype=like.dtype)
            else:
                found[PREFIX + name] = torch.randn(shape, generator=gen).to(like.dtype) / shape[1] ** 0.5
        return found

    def inner_state(self, learned: Tensors, theta: Tensors) -> Tensors:
        """The configured optimiser's, averages at zero, and the cell's state at zero."""
        state = super().inner_state(learned, theta)
        for name, value in theta.items():
            for i in range(len(self.config.decays)):
                state = {**state, f"{OWN}average{i}/{name}": torch.zeros_like(value)}
            if self.config.cell == "lstm":
                empty = value.new_zeros(*value.shape, self.config.hidden)
                state = {**state, f"{OWN}h/{name}": empty, f"{OWN}c/{name}": empty}
        return state

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        """θ + exp(a) u − α b."""
        plain = {name: value for name, value in state.items() if not name.startswith(OWN)}
        moved, after = super().inner_step(learned, k, theta, gradient, plain, lr)
        after = dict(after)
        bent: Tensors = {}
        for name, value in theta.items():
            seen = [gradient[name]]
            for i, decay in enumerate(self.config.decays):
                slot = f"{OWN}average{i}/{name}"
                after[slot] = decay * state[slot] + (1 - decay) * gradient[name]
                seen.append(after[slot])
            x_F = torch.cat([features(v) for v in seen], -1)
            if self.config.cell == "lstm":
                h, c = self._recur(learned, x_F, state[f"{OWN}h/{name}"], state[f"{OWN}c/{name}"])
                after[f"{OWN}h/{name}"], after[f"{OWN}c/{name}"] = h, c
            else:
                h = torch.tanh(x_F @ learned[PREFIX + "in"].T + learned[PREFIX + "bias"])
            a, b = (h @ learned[PREFIX + "out"].T + learned[PREFIX + "out_bias"]).unbind(-1)
            bent[name] = value + a.exp() * (moved[name] - value) - lr * b
        return bent, after

    def extra_lr(self) -> float:
        """The step size of ω."""
        return self.config.net_lr

    def extras(self) -> list[str]:
        """The net's weights."""
        return [PREFIX + name for name in self._shapes()]

    def _recur(self, learned: Tensors, x_F: Tensor, h_H: Tensor, c_H: Tensor) -> tuple[Tensor, Tensor]:
        """One step of an LSTM cell; its forget gate starts half open, plus 1."""
        gates = x_F @ learned[PREFIX + "in"].T + h_H @ learned[PREFIX + "again"].T + learned[PREFIX + "bias"]
        into, forget, new, out = gates.chunk(4, -1)
        c_H = torch.sigmoid(forget + 1) * c_H + torch.sigmoid(into) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(c_H), c_H

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        width, seen = self.config.hidden, 2 * (1 + len(self.config.decays))
        ends = {"out": (2, width), "out_bias": (2,)}
        if self.config.cell == "lstm":
            return {"in": (4 * width, seen), "again": (4 * width, width), "bias": (4 * width,), **ends}
        return {"in": (width, seen), "bias": (width,), **ends}


def features(value: Tensor) -> Tensor:
    """Two numbers for each coordinate, both in [−1, 1] for |v| ≤ e^p, whatever the scale: [..., 2].

    Example:
        >>> features(torch.tensor([1.0, -1.0, 0.0])).tolist()
        [[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]]
    """
    floor = torch.e**-P
    return torch.stack([value.abs().clamp_min(floor).log() / P, (value / floor).clamp(-1, 1)], -1)
