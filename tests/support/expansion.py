"""The two leading terms of a meta-gradient in small inner steps, measured on quadratics.

With losses L_1..L_k in random order, ḡ_i and H_i their gradients and Hessians at the initialisation φ, and α the inner
step size, the mean meta-gradient over the orders is

    E[g] = a · AvgGrad + b α · AvgGradInner + O(α²),   AvgGrad = E[ḡ_1],  AvgGradInner = E[H_2 ḡ_1].

MAML and FOMAML adapt on the first k − 1 and are judged on the last, Reptile adapts on all k: (a, b) is (1, −2(k−1)),
(1, −(k−1)) and (k, −k(k−1)/2). Source: Nichol, Achiam, Schulman, 2018, arXiv:1803.02999, section 5.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from warploom.algorithms.base import Algorithm
from warploom.configs import Kind, TaskConfig
from warploom.models.base import Model, make_model
from warploom.tasks.base import TaskFamily
from warploom.types import MetaState, TaskRef, Tasks


class Quadratic(NamedTuple):
    """L(θ) = ½ (θ − c)ᵀ H (θ − c), with H [D, D] symmetric and c [D], both float64."""

    H: Tensor
    c: Tensor

    def slope(self, theta: Tensor) -> Tensor:
        """∇L(θ)."""
        return self.H @ (theta - self.c)


# The meta-gradient [D] at φ for losses in the order in which they come up, under inner SGD of step size α.
MetaGradient = Callable[[Sequence[Quadratic], Tensor, float], Tensor]


def expansion(meta_gradient: MetaGradient, k: int, *, dimension: int = 4, seed: int = 0) -> tuple[float, float]:
    """The coefficients a and b of AvgGrad and α AvgGradInner.

    The meta-gradient is averaged over all k! orders of k random quadratics, for a range of α, and a polynomial in α is
    fitted to each of its coordinates; on quadratics it is one, of degree 2k − 2 at most for what is tested here.

    Raises:
        AssertionError: the first or second term is not along AvgGrad or AvgGradInner.
    """
    gen = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(k):
        root = torch.randn(dimension, dimension, generator=gen, dtype=torch.float64) / dimension**0.5
        losses.append(Quadratic(root @ root.T, torch.randn(dimension, generator=gen, dtype=torch.float64)))
    phi = torch.randn(dimension, generator=gen, dtype=torch.float64)
    pairs = list(itertools.permutations(losses, 2))
    avg_grad = torch.stack([loss.slope(phi) for loss in losses]).mean(0)
    avg_grad_inner = torch.stack([other.H @ loss.slope(phi) for loss, other in pairs]).mean(0)

    orders = list(itertools.permutations(losses))
    widest, degree = 0.2, 2 * k - 2
    rates = [widest * (i + 1) / (degree + 4) for i in range(degree + 4)]
    mean_RD = torch.stack([torch.stack([meta_gradient(order, phi, a) for order in orders]).mean(0) for a in rates])
    powers_RP = torch.tensor(rates, dtype=torch.float64)[:, None].div(widest) ** torch.arange(degree + 1)
    terms_PD = torch.linalg.lstsq(powers_RP, mean_RD).solution
    return _along(terms_PD[0], avg_grad), _along(terms_PD[1] / widest, avg_grad_inner)


def by_algorithm(make: Callable[[Model, TaskFamily[QuadraticsConfig], int, float], Algorithm]) -> MetaGradient:
    """The meta-gradient that an algorithm gives: its own rollout and meta-gradient, on the last loss as the query.

    Args:
        make: the algorithm for a model, a family, a number of inner steps and α.
    """

    def meta_gradient(losses: Sequence[Quadratic], phi: Tensor, alpha: float) -> Tensor:
        family = Quadratics(QuadraticsConfig(dimension=len(phi), steps=len(losses) - 1))
        algorithm = make(family.model(), family, len(losses) - 1, alpha)
        rest = {name: value.double() for name, value in algorithm.init(0).params.items()}
        meta = MetaState(0, {**rest, "theta": phi})
        experiences = algorithm.rollout(meta, family.tasks(losses[:-1], losses[-1:]), seeds=[0])
        return algorithm.meta_gradient(meta, experiences, seed=0).values["theta"]

    return meta_gradient


class QuadraticsConfig(TaskConfig):
    """Losses that follow each other: step k of adaptation sees the k-th of the support set."""

    kind: ClassVar[Kind] = "regression"
    name: Literal["quadratics"] = "quadratics"
    dimension: int = 4
    steps: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.dimension, self.dimension + 1)

    @property
    def outputs(self) -> int:
        return 1


class Quadratics(TaskFamily[QuadraticsConfig]):
    """An example is a quadratic, [H | c]; the model's output for it is its value at the one parameter, θ."""

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        raise NotImplementedError

    @property
    def phases(self) -> int:
        return self.config.steps

    def loss(self, model, params, x_B, y_B, stats):
        return torch.func.functional_call(model.module, dict(params), (x_B,)).mean()

    def model(self) -> Model:
        return make_model(lambda: _Bowl(self.config.dimension), lambda _: "adapt", "regression")

    def tasks(self, support: Sequence[Quadratic], query: Sequence[Quadratic]) -> Tasks:
        """One task."""
        x = [torch.stack([torch.cat([q.H, q.c[:, None]], 1) for q in part])[None] for part in (support, query)]
        y = [torch.zeros(1, part.shape[1], 1, dtype=torch.float64) for part in x]
        return Tasks((TaskRef("train", 0, 0),), x[0], y[0], x[1], y[1])


class _Bowl(nn.Module):
    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(dimension))

    def forward(self, x_B: Tensor) -> Tensor:
        H_B, c_B = x_B[..., :-1], x_B[..., -1]
        away_B = self.theta - c_B
        return 0.5 * torch.einsum("bi,bij,bj->b", away_B, H_B, away_B)[:, None]


def _along(found: Tensor, axis: Tensor) -> float:
    factor = (found @ axis) / (axis @ axis)
    assert (found - factor * axis).norm() < 1e-6 * axis.norm(), "not along the axis"
    return float(factor)
