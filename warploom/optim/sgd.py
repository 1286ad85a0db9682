"""Stochastic gradient descent."""

from __future__ import annotations

import torch

from warploom.optim.base import InnerOptimiser, Setting, Settings, decayed, of, refuse_lost, zeros
from warploom.optim.configs import SGDConfig
from warploom.types import Tensors


class SGD(InnerOptimiser[SGDConfig]):
    """θ ← θ − α (g + μ b) or θ ← θ − α b, with b ← μ b + (1 − d) g, as torch.optim.SGD.

    The first b is g itself, without dampening. Without momentum in the config there is no state.
    """

    def settings(self) -> dict[str, Setting]:
        """`momentum`, `dampening` and `weight_decay`."""
        config = self.config
        return {"momentum": config.momentum, "dampening": config.dampening, "weight_decay": config.weight_decay}

    def init(self, theta: Tensors) -> Tensors:
        """A step count and a zero buffer for each parameter, if there is momentum."""
        return zeros(theta, "momentum") if self.config.momentum else {}

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        after: Tensors = {"step": state["step"] + 1} if state else {}
        if not state:
            refuse_lost(settings["momentum"], "momentum", "sgd")
        for name, value in theta.items():
            g = decayed(gradient[name], value, of(settings["weight_decay"], name))
            if state:
                mu, damp = of(settings["momentum"], name), of(settings["dampening"], name)
                kept = torch.where(state["step"] == 0, g, mu * state[f"momentum/{name}"] + (1 - damp) * g)
                after[f"momentum/{name}"] = kept
                g = g + mu * kept if self.config.nesterov else kept
            moved[name] = value - of(settings["lr"], name) * g
        return moved, after
