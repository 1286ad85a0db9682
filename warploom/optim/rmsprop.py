"""RMSprop. Source: Tieleman, Hinton, lecture 6.5, 2012; centred form: Graves 2013, arXiv:1308.0850, Eq 38 to 45."""

from __future__ import annotations

from warploom.optim.base import InnerOptimiser, Setting, Settings, decayed, of, refuse_lost, root, zeros
from warploom.optim.configs import RMSpropConfig
from warploom.types import Tensors


class RMSprop(InnerOptimiser[RMSpropConfig]):
    """θ ← θ − α b, with b ← μ b + g / (√v + ε) and v ← ρ v + (1 − ρ) g², as torch.optim.RMSprop.

    Centred: √(v − m²) with m ← ρ m + (1 − ρ) g; a difference below 0, which is round-off, counts as 0. ρ is the
    setting `alpha`.
    """

    def settings(self) -> dict[str, Setting]:
        """`alpha`, `momentum`, `eps` and `weight_decay`."""
        c = self.config
        return {"alpha": c.alpha, "momentum": c.momentum, "eps": c.eps, "weight_decay": c.weight_decay}

    def init(self, theta: Tensors) -> Tensors:
        """Step count, zero averages, and a zero buffer if there is momentum."""
        centered = ["first"] if self.config.centered else []
        return zeros(theta, "second", *centered, *(["momentum"] if self.config.momentum else []))

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        after: Tensors = {"step": state["step"] + 1}
        if not self.config.momentum:
            refuse_lost(settings["momentum"], "momentum", "rmsprop")
        for name, value in theta.items():
            rho = of(settings["alpha"], name)
            g = decayed(gradient[name], value, of(settings["weight_decay"], name))
            second = rho * state[f"second/{name}"] + (1 - rho) * g * g
            after[f"second/{name}"] = second
            if self.config.centered:
                first = rho * state[f"first/{name}"] + (1 - rho) * g
                after[f"first/{name}"] = first
                second = second - first * first
            step = g / (root(second) + of(settings["eps"], name))
            if self.config.momentum:
                step = of(settings["momentum"], name) * state[f"momentum/{name}"] + step
                after[f"momentum/{name}"] = step
            moved[name] = value - of(settings["lr"], name) * step
        return moved, after
