"""Adadelta. Source: Zeiler 2012, arXiv:1212.5701, Algorithm 1."""

from __future__ import annotations

import torch

from warploom.optim.base import InnerOptimiser, Setting, Settings, decayed, of, zeros
from warploom.optim.configs import AdadeltaConfig
from warploom.types import Tensors


class Adadelta(InnerOptimiser[AdadeltaConfig]):
    """θ ← θ − α Δ, with v ← ρ v + (1 − ρ) g², Δ = g √(u + ε) / √(v + ε), u ← ρ u + (1 − ρ) Δ², as torch.optim.Adadelta.

    Departure from the paper, as in torch.optim: a step size α, which is 1 there.
    """

    def settings(self) -> dict[str, Setting]:
        """`rho`, `eps` and `weight_decay`."""
        return {"rho": self.config.rho, "eps": self.config.eps, "weight_decay": self.config.weight_decay}

    def init(self, theta: Tensors) -> Tensors:
        """Step count, zero averages."""
        return zeros(theta, "second", "moved")

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        after: Tensors = {"step": state["step"] + 1}
        for name, value in theta.items():
            rho, eps = of(settings["rho"], name), of(settings["eps"], name)
            g = decayed(gradient[name], value, of(settings["weight_decay"], name))
            second = rho * state[f"second/{name}"] + (1 - rho) * g * g
            before = state[f"moved/{name}"]
            step = g * torch.sqrt(before + eps) / torch.sqrt(second + eps)
            after |= {f"second/{name}": second, f"moved/{name}": rho * before + (1 - rho) * step * step}
            moved[name] = value - of(settings["lr"], name) * step
        return moved, after
