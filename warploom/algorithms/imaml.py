"""iMAML: the initialisation as the centre of a proximal term, learned by the gradient of the inner optimum.

Symbols: θ the initialisation, φ* = argmin L_S(φ) + λ/2 ‖φ − θ‖², H = ∇²L_S(φ*). The meta-gradient of a task is

    (I + H/λ)⁻¹ ∇L_Q(φ*),

the system solved by conjugate gradients; `warploom.algorithms.implicit` says the rest. No steps of CG leave ∇L_Q(φ*),
the first-order gradient.
Source: Rajeswaran, Finn, Kakade, Levine, NeurIPS 2019, arXiv:1909.04630, Lemma 1 and Algorithms 1 and 2.

Departures:
* The proximal term is in every inner step, as in the paper; the authors' code has it in one step after the others,
  and another matrix (`form` authors does as they do, but for batch normalisation as our models have it).
* Parameters that the inner loop holds fixed (a warp) are learned too, by their part of the same gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from warploom.algorithms.configs.imaml import IMAMLConfig
from warploom.algorithms.implicit import Implicit
from warploom.algorithms.linear_solve import Product, along, conjugate_gradient
from warploom.algorithms.proximal import Proximal
from warploom.functional import over_tasks
from warploom.inner import InnerStep, SupportBatches
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors

AUTHORS_OFFSET = 10.0


class IMAML(Implicit[IMAMLConfig]):
    """Implicit MAML, for any inner optimiser or Newton steps."""

    def near(self, learned: Tensors) -> Proximal:
        """λ/2 ‖φ − θ‖²."""
        return Proximal(dict.fromkeys(self.adapts(), self.config.proximal), self.start(learned))

    def solve(self, learned: Tensors, product: Product, b: Tensors) -> tuple[Tensors, Tensor]:  # noqa: ARG002
        """u = g/λ with (I + H/λ) g = b, or with the authors' matrix."""
        config, strength = self.config, self.config.proximal
        divisor = strength if config.form == "paper" else strength + AUTHORS_OFFSET

        def matrix(v: Tensors) -> Tensors:
            return {name: (1 + config.damping) * v[name] + hv / divisor for name, hv in product(v).items()}

        g, residual = conjugate_gradient(matrix, b, steps=config.cg_steps, tolerance=config.cg_tolerance)
        return {name: value / strength for name, value in g.items()}, residual

    def pulled(self, learned: Tensors, phi: Tensors, u: Tensors) -> Tensors:  # noqa: ARG002
        """λ u for θ."""
        return self.near(learned).bend(u)

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        """One step on L_S + λ/2 ‖φ − θ‖², or on L_S alone in the authors' form."""
        if self.config.form == "authors":
            return self.optimiser.step(theta, gradient, state, self.inner_settings(learned, k, lr))
        return super().inner_step(learned, k, theta, gradient, state, lr)

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for every meta-parameter."""
        config = self.config
        return Outer(config.outer, dict.fromkeys(self.learns(), config.outer_lr), config.clip_norm)

    def learns(self) -> list[str]:
        """All of the model's parameters but frozen ones."""
        return self.model.names("adapt", "warp", "head")

    def _path(
        self,
        meta: MetaState,
        tasks: Tasks,
        batches: SupportBatches,
        steps: int | None,
        lr: float | Sequence[float] | None,
    ) -> Iterator[InnerStep]:
        path = super()._path(meta, tasks, batches, steps, lr)
        if self.config.form == "paper" or self.config.inner_solver == "hessian-free":
            return path
        return self._pulled_back(meta, tasks, batches, path, self.config.inner_lr if lr is None else lr)

    def _pulled_back(
        self,
        meta: MetaState,
        tasks: Tasks,
        batches: SupportBatches,
        path: Iterator[InnerStep],
        lr: float | Sequence[float],
    ) -> Iterator[InnerStep]:
        """The path, its end moved by φ ← φ − α λ (φ − θ)."""
        near, stats = self.near(meta.params), self.given_stats(meta)
        like = next(iter(meta.params.values()))
        rates = [lr] * tasks.count if isinstance(lr, int | float) else list(lr)
        rates_T = torch.tensor(rates, dtype=like.dtype, device=like.device)

        def last(phi: Tensors, rate: Tensor, x_B: Tensor, y_B: Tensor) -> tuple[Tensors, Tensor]:
            phi = along(phi, -rate, near.slope(phi))
            return phi, self.support_loss(meta.params, phi, x_B, y_B, stats)

        for step in path:
            if step.gradient_T:
                yield step
                continue
            x_TB, y_TB = batches.next()
            with torch.no_grad():
                theta_T, loss_T = over_tasks(
                    last, step.theta_T, rates_T, x_TB, y_TB, vectorise=self._vectorise(tasks.support_x)
                )
            yield replace(step, theta_T=theta_T, loss_T=loss_T)
