"""Slopes by central differences, for exact tests of gradients in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

Values = dict[str, Tensor]


def check_slope(
    objective: Callable[[Values], float | Tensor],
    at: Mapping[str, Tensor],
    gradient: Mapping[str, Tensor],
    *,
    directions: int = 4,
    h: float = 1e-5,
    rel: float = 1e-6,
    absolute: float = 1e-8,
) -> None:
    """The gradient along random directions in the space of its names is the slope of `objective` there."""
    gen = torch.Generator().manual_seed(3)
    for _ in range(directions):
        way = {n: torch.randn(at[n].shape, generator=gen, dtype=torch.float64) for n in sorted(gradient)}
        ends = [float(objective({**at, **{n: at[n] + sign * h * way[n] for n in way}})) for sign in (1, -1)]
        along = float(sum((gradient[n] * way[n]).sum() for n in way))
        slope = (ends[0] - ends[1]) / (2 * h)
        assert along == pytest.approx(slope, rel=rel, abs=absolute), (along, slope)
