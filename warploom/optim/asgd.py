"""Averaged stochastic gradient descent. Source: Polyak, Juditsky, SIAM J. Control Optim. 30 (1992)."""

from __future__ import annotations

import torch

from warploom.optim.base import InnerOptimiser, Setting, Settings, decayed, lifted, of, zeros
from warploom.optim.configs import ASGDConfig
from warploom.types import Tensors


class ASGD(InnerOptimiser[ASGDConfig]):
    """θ ← (1 − λη) θ − η g, with η = α / (1 + λ α n)^a after n steps, as torch.optim.ASGD.

    Beside it, a ← a + (θ − a) / max(1, n − t₀), the average since step t₀, in the slot `average` of the state; it
    moves nothing. torch.optim computes η at the end of the step before; here it is computed when it is used, which is
    the same unless settings change from step to step.
    """

    def settings(self) -> dict[str, Setting]:
        """`lambd` λ, `alpha` (the power a), `t0` and `weight_decay`."""
        c = self.config
        return {"lambd": c.lambd, "alpha": c.alpha, "t0": c.t0, "weight_decay": c.weight_decay}

    def init(self, theta: Tensors) -> Tensors:
        """Step count, and the parameters as their own average."""
        return zeros(theta) | {f"average/{name}": value for name, value in theta.items()}

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        n = state["step"]
        after: Tensors = {"step": n + 1}
        for name, value in theta.items():
            lr, lambd = of(settings["lr"], name), of(settings["lambd"], name)
            g = decayed(gradient[name], value, of(settings["weight_decay"], name))
            eta = lr / (1 + lambd * lr * n) ** of(settings["alpha"], name)
            moved[name] = value * (1 - lambd * eta) - eta * g
            share = 1 / torch.clamp(n - lifted(of(settings["t0"], name), n), min=1)
            before = state[f"average/{name}"]
            after[f"average/{name}"] = before + share * (moved[name] - before)
        return moved, after
