"""Linear systems A x = b without A: conjugate gradients and the Neumann series, on parameters by name.

All for one task; under a transform over tasks each task has scalars of its own and stops on its own. A is given as
the function v ↦ A v, usually made of the Hessian by `hessian`. Memory does not grow with the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad_and_value, vjp

from warploom.models.base import VECTORISED
from warploom.types import Tensors

Product = Callable[[Tensors], Tensors]


def dot(a: Tensors, b: Tensors) -> Tensor:
    """⟨a, b⟩ over all tensors, a scalar."""
    return torch.stack([(value * b[name]).sum() for name, value in a.items()]).sum()


def along(a: Tensors, scale: Tensor | float, b: Tensors) -> Tensors:
    """a + scale · b."""
    return {name: value + scale * b[name] for name, value in a.items()}


def hessian(loss: Callable[[Tensors], Tensor], at: Tensors) -> tuple[Tensor, Tensors, Product]:
    """Value, gradient and Hessian of a loss at a point; the Hessian as v ↦ H v.

    The gradient is recorded once and each product is one pass back through it, which for convolutions on a CPU takes
    half the time of a forward derivative of the gradient.

    Args:
        loss: from parameters by name to a scalar.
        at: the point.

    Example:
        >>> value, slope, product = hessian(lambda p: (p["w"] ** 3).sum(), {"w": torch.tensor([2.0])})
        >>> value.item(), slope["w"].item(), product({"w": torch.tensor([1.0])})["w"].item()
        (8.0, 12.0, 12.0)
    """
    slope, pull, *aux = vjp(grad_and_value(loss), at, has_aux=True)
    return aux[0], slope, lambda v: pull(v)[0]


def conjugate_gradient(apply: Product, b: Tensors, *, steps: int, tolerance: float = 0.0) -> tuple[Tensors, Tensor]:
    """x with A x ≈ b for a symmetric positive definite A, from x = 0.

    A task stands still once ‖b − A x‖ ≤ tolerance · ‖b‖, or once a direction p has ⟨p, A p⟩ ≤ 0: then A is not
    positive definite and x is the last point before it (b itself, if that was the first direction). The number of
    steps is fixed under a transform over tasks; a task by itself stops early, with the same result.

    Args:
        apply: v ↦ A v.
        b: the right-hand side, by name.
        steps: at most this many products; 0 gives x = b, the identity in place of A⁻¹.
        tolerance: relative size of the residual at which to stop.

    Returns:
        x, and ‖b − A x‖ / ‖b‖ (1 for no steps, 0 for b = 0).

    Example:
        >>> x, residual = conjugate_gradient(lambda v: {"w": 4 * v["w"]}, {"w": torch.ones(2)}, steps=1)
        >>> x["w"].tolist(), residual.item()
        ([0.25, 0.25], 0.0)

    Source: Hestenes and Stiefel 1952; the stop at negative curvature as in truncated Newton methods (Nocedal and
    Wright, Numerical Optimization, Algorithm 7.1).
    """
    square = dot(b, b)
    if steps == 0:
        return dict(b), torch.ones_like(square)
    first, enough = square, tolerance**2 * square
    live = square > enough
    x = {name: torch.zeros_like(value) for name, value in b.items()}
    r = p = b
    for k in range(steps):
        if not VECTORISED.get() and not bool(live):
            break
        q = apply(p)
        bend = dot(p, q)
        flat = bend <= 0  # false for NaN, which is to reach x and be seen there
        size = torch.where(flat, torch.full_like(bend, float(k == 0)), square / torch.where(flat, 1.0, bend))
        size = torch.where(live, size, 0.0)
        x, r = along(x, size, p), along(r, -size, q)
        before, square = square, dot(r, r)
        live = live & ~flat & (square > enough)
        p = along(r, torch.where(live, square / before, 0.0), p)
    return x, torch.where(first > 0, square / torch.where(first > 0, first, 1.0), 0.0).sqrt()


def neumann(apply: Product, b: Tensors, *, steps: int, size: float) -> tuple[Tensors, Tensor]:
    """x = a Σ_{j=0..n} (I − a A)^j b, which tends to A⁻¹ b when all eigenvalues of a A are in (0, 2).

    Args:
        apply: v ↦ A v.
        b: the right-hand side, by name.
        steps: n, the number of products; 0 gives x = a b.
        size: a. As the step size of gradient descent: n terms are then the gradient through n steps at the optimum.

    Returns:
        x, and ‖(I − a A)^n b‖ / ‖b‖, the size of the last term: it tends to 0 if the series converges.

    Source: Lorraine, Vicol, Duvenaud, AISTATS 2020, arXiv:1911.02590, section 3.
    """
    term = total = b
    for _ in range(steps):
        term = along(term, -size, apply(term))
        total = along(total, 1.0, term)
    first = dot(b, b)
    last = torch.where(first > 0, dot(term, term) / torch.where(first > 0, first, 1.0), 0.0).sqrt()
    return {name: size * value for name, value in total.items()}, last
