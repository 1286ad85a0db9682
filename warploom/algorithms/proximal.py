"""The quadratic that holds adapted parameters near a centre."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from warploom.types import Tensors


@dataclass(frozen=True, slots=True)
class Proximal:
    """R(θ) = ½ Σ_p w_p ‖θ_p − c_p‖², the sum over parameter tensors p.

    Args:
        weight: w, a number or a scalar tensor for each parameter, not negative.
        centre: c, by name.

    Example:
        >>> near = Proximal({"w": 2.0}, {"w": torch.zeros(2)})
        >>> near.value({"w": torch.ones(2)}).item(), near.slope({"w": torch.ones(2)})["w"].tolist()
        (2.0, [2.0, 2.0])
    """

    weight: Mapping[str, Tensor | float]
    centre: Tensors

    def value(self, theta: Tensors) -> Tensor:
        """R(θ), a scalar."""
        parts = [w * (theta[name] - self.centre[name]).square().sum() for name, w in self.weight.items()]
        return 0.5 * torch.stack(parts).sum()

    def slope(self, theta: Tensors) -> Tensors:
        """∇R(θ) = w (θ − c)."""
        return {name: w * (theta[name] - self.centre[name]) for name, w in self.weight.items()}

    def bend(self, v: Tensors) -> Tensors:
        """∇²R v = w v; also −∂⟨∇R(θ), v⟩/∂c."""
        return {name: w * v[name] for name, w in self.weight.items()}
