"""Meta-gradients at the optimum of the inner problem, by the implicit function theorem.

Symbols: m all meta-parameters, θ those that adapt, G(φ; m) = L_S(φ; m) + R(φ; m) the inner objective with the
proximal term R = ½ Σ_p w_p ‖φ_p − c_p‖² (`warploom.algorithms.proximal`), φ* its minimiser, H = ∇²L_S(φ*), L_Q the
loss of the queries. Because ∇G(φ*; m) = 0 for every m,

    dL_Q(φ*(m); m)/dm = ∂_m L_Q − ∂_m ⟨∇_φ G(φ*; m), u⟩   with   (H + W) u = ∇_φ L_Q(φ*),

where W is diagonal and holds w. So ∂/∂c = w u, ∂/∂w_p = −⟨φ_p − c_p, u_p⟩, and for parameters that the inner loop
holds fixed one mixed second derivative. Nothing of the path to φ* is kept: memory is flat in the inner steps. An error
in φ* or in u is an error of the same order in the gradient.

Batch normalisation by the batch (`bn_mode` task): the statistics are functions of φ and are differentiated wherever
they occur, those of the support batch in ∇L_S and H, and the support statistics that normalise the queries in ∇L_Q.
With `running` they are constants; with `transductive` the queries' own are differentiated.
H is taken on the whole support set (one fresh draw of it where a family augments).

Shape suffixes: T tasks, S support, Q query.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from warploom.algorithms.configs.implicit import ImplicitConfig
from warploom.algorithms.linear_solve import Product, hessian
from warploom.algorithms.newton import descend_by_newton
from warploom.algorithms.proximal import Proximal
from warploom.algorithms.ready import Ready
from warploom.functional import over_tasks
from warploom.inner import InnerStep, SupportBatches
from warploom.types import MetaState, Tasks, Tensors

ImplicitT = TypeVar("ImplicitT", bound=ImplicitConfig)


class Implicit(Ready[ImplicitT], Generic[ImplicitT]):
    """The base of algorithms that differentiate the optimum and not the path."""

    @abstractmethod
    def near(self, learned: Tensors) -> Proximal:
        """R of the inner problem."""

    @abstractmethod
    def solve(self, learned: Tensors, product: Product, b: Tensors) -> tuple[Tensors, Tensor]:
        """u ≈ (H + W)⁻¹ b, and what is left as a share of b.

        Args:
            learned: the meta-parameters.
            product: v ↦ H v.
            b: ∇_φ L_Q(φ*).
        """

    @abstractmethod
    def pulled(self, learned: Tensors, phi: Tensors, u: Tensors) -> Tensors:
        """−∂_m ⟨∇R(φ*; m), u⟩ for the meta-parameters in R that are learned."""

    @abstractmethod
    def learns(self) -> list[str]:
        """The names of the meta-parameters that the outer loop moves."""

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        """One step of the inner optimiser on G; the losses that are shown are those of L_S alone."""
        slope = self.near(learned).slope(theta)
        whole = {name: g + slope[name] for name, g in gradient.items()}
        return super().inner_step(learned, k, theta, whole, state, lr)

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """dL_Q(φ*(m); m)/dm for each task."""
        learned, stats = meta.params, self.given_stats(meta)
        batches = self._batches(tasks, seeds)
        first_T = torch.empty(0)
        for last in self._path(meta, tasks, batches, None, None):
            first_T = first_T if last.k else last.loss_T
        held = {name: value for name, value in self.fixed(learned).items() if name in self.learns()}

        def one(phi: Tensors, x_S: Tensor, y_S: Tensor, x_Q: Tensor, y_Q: Tensor) -> tuple[Tensors, Tensor, Tensor]:
            def support(own: Tensors, known: Tensors) -> Tensor:
                return self.support_loss({**learned, **known}, own, x_S, y_S, stats)

            def queries(own: Tensors, known: Tensors) -> Tensor:
                return self.outer_loss({**learned, **known}, own, x_S, x_Q, y_Q, stats)

            b, value = grad_and_value(queries)(phi, held)
            _, _, product = hessian(lambda own: support(own, held), phi)
            u, residual = self.solve(learned, product, b)
            gradient = self.pulled(learned, phi, u)
            if held:
                direct = grad(queries, argnums=1)(phi, held)
                (mixed,) = vjp(lambda known: grad(support)(phi, known), held)[1](u)
                gradient |= {name: direct[name] - mixed[name] for name in held}
            return gradient, value, residual

        with torch.no_grad():
            gradient_T, query_T, residual_T = over_tasks(
                one,
                last.theta_T,
                batches.everything(),
                tasks.support_y,
                tasks.query_x,
                tasks.query_y,
                vectorise=self._vectorise(tasks.support_x),
            )
        return gradient_T, {
            "support_loss_first": first_T,
            "support_loss": last.loss_T,
            "query_loss": query_T,
            "solve_residual": residual_T,
        }

    def _path(
        self,
        meta: MetaState,
        tasks: Tasks,
        batches: SupportBatches,
        steps: int | None,
        lr: float | Sequence[float] | None,
    ) -> Iterator[InnerStep]:
        if self.config.inner_solver == "gradient":
            return super()._path(meta, tasks, batches, steps, lr)
        stats = self.given_stats(meta)
        return descend_by_newton(
            lambda own, x_B, y_B: self.support_loss(meta.params, own, x_B, y_B, stats),
            self.near(meta.params),
            self.start(meta.params),
            batches,
            cg_steps=self.config.newton_cg_steps,
            steps=self.config.inner_steps if steps is None else steps,
            lr=self.config.inner_lr if lr is None else lr,
            tasks=tasks.count,
            vectorise=self._vectorise(tasks.support_x),
        )
