"""The Hessian-free inner solver: Newton steps by conjugate gradients, with a line search.

Each step solves ∇²G d = ∇G for the inner objective G = L + R (task loss and proximal term) by a few steps of CG, and
goes along −d by α, α/2, α/4, …, whichever first lowers G enough (Armijo's rule); if none does, it stays.
Shape suffixes: T tasks, B batch.

Source: the Hessian-free variant of iMAML (Rajeswaran et al., NeurIPS 2019) after Martens, ICML 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from warploom.algorithms.linear_solve import along, conjugate_gradient, dot, hessian
from warploom.algorithms.proximal import Proximal
from warploom.functional import expand, over_tasks
from warploom.inner import InnerStep, SupportBatches
from warploom.models.base import VECTORISED
from warploom.types import Tensors

SUFFICIENT = 1e-4
HALVINGS = 10
SOLVED = 1e-8  # relative residual at which CG stops: nothing is gained from a better direction


def newton_step(
    loss: Callable[[Tensors], Tensor], near: Proximal, theta: Tensors, size: Tensor, *, cg_steps: int
) -> tuple[Tensors, Tensors, Tensor]:
    """One step for one task.

    Args:
        loss: L.
        near: R.
        theta: θ, by name.
        size: α, the first step size to try, a scalar; 1 is the whole Newton step.
        cg_steps: of conjugate gradients, at most.

    Returns:
        θ after the step, ∇L(θ), L(θ).

    Example:
        >>> bowl, near = (lambda p: 3 * (p["w"] - 1).square().sum()), Proximal({"w": 0.0}, {"w": torch.zeros(2)})
        >>> newton_step(bowl, near, {"w": torch.zeros(2)}, torch.tensor(1.0), cg_steps=1)[0]["w"].tolist()
        [1.0, 1.0]
    """
    value, slope, product = hessian(loss, theta)
    g = along(slope, 1.0, near.slope(theta))
    d, _ = conjugate_gradient(lambda v: along(product(v), 1.0, near.bend(v)), g, steps=cg_steps, tolerance=SOLVED)
    here, fall = value + near.value(theta), dot(g, d)
    done, best = torch.zeros_like(fall, dtype=torch.bool), torch.zeros_like(fall)
    for _ in range(HALVINGS + 1):
        there = along(theta, -size, d)
        good = loss(there) + near.value(there) <= here - SUFFICIENT * size * fall
        best = torch.where(good & ~done, size, best)
        done = done | good
        if not VECTORISED.get() and bool(done):
            break
        size = size / 2
    return along(theta, -best, d), slope, value


def descend_by_newton(
    loss: Callable[[Tensors, Tensor, Tensor], Tensor],
    near: Proximal,
    start: Tensors,
    batches: SupportBatches,
    *,
    cg_steps: int,
    steps: int,
    lr: float | Sequence[float],
    tasks: int,
    vectorise: bool,
) -> Iterator[InnerStep]:
    """As `warploom.inner.descend`, by Newton steps.

    Args:
        loss: L of parameters and a batch x [B, *input], y [B, ...].
        near: R.
        start: θ_0, the same for all tasks.
        batches: where the batch of each step comes from.
        cg_steps: see `newton_step`.
        steps: K.
        lr: α, one for all or one per task.
        tasks: T.
        vectorise: see `warploom.functional.over_tasks`.
    """
    current = expand(start, tasks)
    like = next(iter(start.values()))
    sizes_T = torch.as_tensor([lr] * tasks if isinstance(lr, int | float) else list(lr), dtype=torch.float64).to(like)

    def one(theta: Tensors, size: Tensor, x_B: Tensor, y_B: Tensor) -> tuple[Tensors, Tensors, Tensor]:
        with torch.no_grad():
            return newton_step(lambda own: loss(own, x_B, y_B), near, theta, size, cg_steps=cg_steps)

    for k in range(steps):
        x_TB, y_TB = batches.next()
        moved, gradient, value_T = over_tasks(one, current, sizes_T, x_TB, y_TB, vectorise=vectorise)
        yield InnerStep(k, current, gradient, value_T)
        current = moved
    x_TB, y_TB = batches.next()
    with torch.no_grad():
        last_T = over_tasks(loss, current, x_TB, y_TB, vectorise=vectorise)
    yield InnerStep(steps, current, {}, last_T)
