"""Adagrad. Source: Duchi, Hazan, Singer, JMLR 2011, the diagonal case."""

from __future__ import annotations

from warploom.optim.base import InnerOptimiser, Setting, Settings, decayed, of, root, zeros
from warploom.optim.configs import AdagradConfig
from warploom.types import Tensors


class Adagrad(InnerOptimiser[AdagradConfig]):
    """θ ← θ − α / (1 + (t − 1) η) · g / (√(s₀ + Σ g²) + ε), as torch.optim.Adagrad.

    The state holds Σ g² without s₀, so that derivatives flow into s₀ as into any other setting.
    """

    def settings(self) -> dict[str, Setting]:
        """`lr_decay` η, `initial_accumulator` s₀, `eps` and `weight_decay`."""
        c = self.config
        return {
            "lr_decay": c.lr_decay,
            "initial_accumulator": c.initial_accumulator,
            "eps": c.eps,
            "weight_decay": c.weight_decay,
        }

    def init(self, theta: Tensors) -> Tensors:
        """Step count, zero sums."""
        return zeros(theta, "sum")

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        after: Tensors = {"step": state["step"] + 1}
        for name, value in theta.items():
            g = decayed(gradient[name], value, of(settings["weight_decay"], name))
            total = state[f"sum/{name}"] + g * g
            after[f"sum/{name}"] = total
            lr = of(settings["lr"], name) / (1 + state["step"] * of(settings["lr_decay"], name))
            divisor = root(total + of(settings["initial_accumulator"], name)) + of(settings["eps"], name)
            moved[name] = value - lr * g / divisor
        return moved, after
