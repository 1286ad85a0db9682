"""The outer step: SGD or Adam over the meta-parameters, as pure functions of explicit state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from warploom.types import Tensors


@dataclass(frozen=True, slots=True)
class Outer:
    """Which optimiser, with which step size for each parameter.

    Args:
        kind: sgd: p ← p − β g. adam: Kingma & Ba 2015, with a step count of its own for each parameter, because the
            warp moves many times in a round and the initialisation once.
        rates: β by parameter name; parameters that are not named do not move.
        clip_norm: gradients of a larger joint norm are scaled down to it.
    """

    kind: Literal["sgd", "adam"]
    rates: Mapping[str, float]
    clip_norm: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, slots=True)
class OuterState:
    """Adam's moments and step counts, by parameter name; empty for SGD."""

    first: Tensors = field(default_factory=dict)
    second: Tensors = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)


def outer_step(
    outer: Outer, state: OuterState, params: Mapping[str, Tensor], gradient: Mapping[str, Tensor]
) -> tuple[Tensors, OuterState]:
    """New parameters and optimiser state; the arguments are left alone.

    Example:
        >>> new, _ = outer_step(Outer("sgd", {"w": 0.5}), OuterState(), {"w": torch.ones(1)}, {"w": torch.ones(1)})
        >>> new["w"].item()
        0.5
    """
    moved = dict(params)
    gradient = _clip({name: g for name, g in gradient.items() if name in outer.rates}, outer.clip_norm)
    if outer.kind == "sgd":
        for name, g in gradient.items():
            moved[name] = params[name] - outer.rates[name] * g
        return moved, state
    first, second, count = dict(state.first), dict(state.second), dict(state.count)
    b1, b2 = outer.betas
    for name, g in gradient.items():
        n = count[name] = count.get(name, 0) + 1
        m = first[name] = b1 * first.get(name, torch.zeros_like(g)) + (1 - b1) * g
        v = second[name] = b2 * second.get(name, torch.zeros_like(g)) + (1 - b2) * g * g
        step = (m / (1 - b1**n)) / ((v / (1 - b2**n)).sqrt() + outer.eps)
        moved[name] = params[name] - outer.rates[name] * step
    return moved, OuterState(first, second, count)


def joint_norm(gradient: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of all tensors taken as one vector."""
    return torch.stack([g.double().square().sum() for g in gradient.values()]).sum().sqrt()


def _clip(gradient: Tensors, limit: float | None) -> Tensors:
    if limit is None or not gradient:
        return gradient
    norm = float(joint_norm(gradient))
    return gradient if norm <= limit else {name: g * (limit / norm) for name, g in gradient.items()}
