"""Adamax. Source: Kingma, Ba, ICLR 2015, arXiv:1412.6980, Algorithm 2."""

from __future__ import annotations

import torch

from warploom.optim.base import InnerOptimiser, Setting, Settings, decayed, grown, of, zeros
from warploom.optim.configs import AdamaxConfig
from warploom.types import Tensors


class Adamax(InnerOptimiser[AdamaxConfig]):
    """θ ← θ − α m / ((1 − β₁^t) u), with m ← β₁ m + (1 − β₁) g and u ← max(β₂ u, |g| + ε), as torch.optim.Adamax."""

    def settings(self) -> dict[str, Setting]:
        """`beta1`, `beta2`, `eps` and `weight_decay`."""
        c = self.config
        return {"beta1": c.beta1, "beta2": c.beta2, "eps": c.eps, "weight_decay": c.weight_decay}

    def init(self, theta: Tensors) -> Tensors:
        """Step count, zero average and maximum."""
        return zeros(theta, "first", "largest")

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        t = state["step"] + 1
        after: Tensors = {"step": t}
        for name, value in theta.items():
            beta1, beta2 = of(settings["beta1"], name), of(settings["beta2"], name)
            g = decayed(gradient[name], value, of(settings["weight_decay"], name))
            first = beta1 * state[f"first/{name}"] + (1 - beta1) * g
            largest = torch.maximum(beta2 * state[f"largest/{name}"], g.abs() + of(settings["eps"], name))
            after |= {f"first/{name}": first, f"largest/{name}": largest}
            moved[name] = value - of(settings["lr"], name) / grown(beta1, t) * first / largest
        return moved, after
