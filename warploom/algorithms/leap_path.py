"""The length or energy of a task's path, and its gradient in the initialisation, gathered step by step.

Symbols: θ_k the k-th state of a path, L_k its loss, ϑ_k = (θ_k, L_k) the point on the loss surface. Memory does not
grow with the number of steps. Shape suffixes: T tasks.
Source: Flennerhag et al., Leap, ICLR 2019, arXiv:1812.01054, Eq 3 to 8; WarpGrad, arXiv:1909.00025, Eq 17.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from warploom.inner import InnerStep
from warploom.types import Tensors

Metric = Literal["length", "energy"]


class PathGradient:
    """∇C for C = Σ_k ‖sg[ϑ_{k+1}] − ϑ_k‖^p, with ∂θ_k/∂θ_0 taken as the identity.

    The forward point ϑ_{k+1} is frozen, so that shortening the path pulls its beginning forward:

        ∇C = −p Σ_k ‖(Δθ_k, ΔL_k)‖^(p−2) (Δθ_k + ΔL_k ∇L(θ_k)),

    with Δθ_k = θ_{k+1} − θ_k and ΔL_k = L_{k+1} − L_k. That is the exact slope of each segment at its own free end.
    The identity is the approximation of the paper (Eq 8): it holds for short steps.

    Args:
        with_loss: whether the loss is a coordinate of the path; without it C is measured on θ alone.
        metric: `length` is p = 1, `energy` is p = 2.
        stabilise: ΔL_k → −|ΔL_k|, so that a step that went uphill does not pull the initialisation uphill.

    Departures: the factor p is kept, so that the result is the gradient; the authors' code drops it. All K segments
    count, the last with its loss on one more batch; the authors' code has K − 1 of them. A segment of no length adds
    nothing.
    """

    def __init__(self, *, with_loss: bool, metric: Metric = "length", stabilise: bool = True) -> None:
        self._with_loss, self._metric, self._stabilise = with_loss, metric, stabilise
        self._previous: InnerStep | None = None
        self.gradient_T: Tensors = {}
        self.length_T = torch.empty(0)

    def add(self, step: InnerStep) -> None:
        """The next state of the path; after the last one, `gradient_T` holds ∇C and `length_T` [T] holds C."""
        before, self._previous = self._previous, step
        if before is None:
            self.gradient_T = {name: torch.zeros_like(value) for name, value in step.theta_T.items()}
            self.length_T = torch.zeros_like(step.loss_T)
            return
        moved_T = {name: value - before.theta_T[name] for name, value in step.theta_T.items()}
        square_T = torch.stack([m.square().reshape(len(m), -1).sum(1) for m in moved_T.values()]).sum(0)
        rise_T = torch.zeros_like(square_T)
        if self._with_loss:
            rise_T = (step.loss_T - before.loss_T).detach().to(square_T)
            rise_T = -rise_T.abs() if self._stabilise else rise_T
            square_T = square_T + rise_T.square()
        norm_T = square_T.sqrt()
        self.length_T = self.length_T + (square_T if self._metric == "energy" else norm_T)
        tiny = torch.finfo(square_T.dtype).tiny
        scale_T = 1 / norm_T.clamp_min(tiny) if self._metric == "length" else torch.full_like(norm_T, 2.0)
        for name, moved in moved_T.items():
            pull = moved + _rows(rise_T, moved) * before.gradient_T[name] if self._with_loss else moved
            self.gradient_T[name] = self.gradient_T[name] - _rows(scale_T, moved) * pull


def _rows(value_T: Tensor, like: Tensor) -> Tensor:
    return value_T.view((-1,) + (1,) * (like.ndim - 1))
