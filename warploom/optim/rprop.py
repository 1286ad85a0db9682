"""Resilient propagation. Source: Riedmiller, Braun, ICNN 1993; the form without weight-backtracking ("iRprop−"):
Igel, Hüsken, Neurocomputing 50 (2003)."""

from __future__ import annotations

import torch

from warploom.optim.base import InnerOptimiser, Setting, Settings, lifted, of, zeros
from warploom.optim.configs import RpropConfig
from warploom.types import Tensors


class Rprop(InnerOptimiser[RpropConfig]):
    """θ ← θ − sign(g) s; s grows by η₊ while g keeps its sign and shrinks by η₋ when it turns, as torch.optim.Rprop.

    When it turned, g counts as 0 in this step and as the last gradient in the next. The first s is α, and α has no
    other effect. Derivatives flow into α, η₊, η₋ and the bounds, but none into the gradient, through whose sign alone
    it acts.
    """

    def settings(self) -> dict[str, Setting]:
        """`eta_minus`, `eta_plus`, `step_min` and `step_max`."""
        c = self.config
        return {"eta_minus": c.eta_minus, "eta_plus": c.eta_plus, "step_min": c.step_min, "step_max": c.step_max}

    def init(self, theta: Tensors) -> Tensors:
        """Step count, zeros for the last gradients and (until the first step, which sets them) the step sizes."""
        return zeros(theta, "last", "size")

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        after: Tensors = {"step": state["step"] + 1}
        for name, value in theta.items():
            lr, minus, plus, low, high = (
                lifted(of(settings[key], name), value)
                for key in ("lr", "eta_minus", "eta_plus", "step_min", "step_max")
            )
            agreement = gradient[name] * state[f"last/{name}"]
            size = torch.where(state["step"] == 0, lr, state[f"size/{name}"])
            size = size * torch.where(agreement > 0, plus, torch.where(agreement < 0, minus, torch.ones_like(value)))
            size = torch.minimum(torch.maximum(size, low), high)
            g = torch.where(agreement < 0, torch.zeros_like(value), gradient[name])
            after |= {f"last/{name}": g, f"size/{name}": size}
            moved[name] = value - g.sign() * size
        return moved, after
