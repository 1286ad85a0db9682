"""Hyper-parameters by implicit differentiation: an L2 strength for each parameter tensor, learned over tasks.

Symbols: η_p the logarithm of a strength, φ* = argmin L_S(φ) + ½ Σ_p exp(η_p) ‖φ_p − c_p‖² with c = θ (the
initialisation) or c = 0, A = ∇²L_S(φ*) + W with W the strengths on the diagonal. With u ≈ A⁻¹ ∇L_Q(φ*), by the
Neumann series or by conjugate gradients, the hypergradient of a task is

    dL_Q/dη_p = −exp(η_p) ⟨φ*_p − c_p, u_p⟩,   and   dL_Q/dθ_p = exp(η_p) u_p   when c = θ;

`warploom.algorithms.implicit` says the rest. Source: Lorraine, Vicol, Duvenaud, AISTATS 2020, arXiv:1911.02590,
Theorem 1 and Algorithms 2 and 3.

Departures:
* The paper warm-starts one inner problem and moves hyper-parameters as it goes; here each task is an inner problem of
  its own, solved from θ, and the hypergradient is the mean over tasks.
* CG beside the paper's Neumann series.
* A step size of the inner optimiser cannot be learned so: the optimum does not depend on it (`learned-rates` can).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from warploom.algorithms.configs.implicit_hpo import ImplicitHPOConfig
from warploom.algorithms.implicit import Implicit
from warploom.algorithms.linear_solve import Product, along, conjugate_gradient, neumann
from warploom.algorithms.proximal import Proximal
from warploom.outer import Outer
from warploom.types import Tensors


class ImplicitHPO(Implicit[ImplicitHPOConfig]):
    """Learned L2 strengths, towards a learned initialisation or towards zero."""

    def also_learned(self, params: Tensors, seed: int) -> Tensors:  # noqa: ARG002
        """η, a scalar for each adaptable parameter, under the name `l2:<parameter>`."""
        start = math.log(self.config.l2)
        return {f"l2:{name}": torch.full_like(params[name], start).flatten()[0] for name in self.adapts()}

    def near(self, learned: Tensors) -> Proximal:
        """½ Σ_p exp(η_p) ‖φ_p − c_p‖²."""
        centre = self.start(learned)
        if self.config.centre == "zero":
            centre = {name: torch.zeros_like(value) for name, value in centre.items()}
        return Proximal({name: learned[f"l2:{name}"].exp() for name in centre}, centre)

    def solve(self, learned: Tensors, product: Product, b: Tensors) -> tuple[Tensors, Tensor]:
        """u ≈ (H + W)⁻¹ b."""
        config, near = self.config, self.near(learned)

        def matrix(v: Tensors) -> Tensors:
            return along(product(v), 1.0, near.bend(v))

        if config.solver == "cg":
            return conjugate_gradient(matrix, b, steps=config.solve_steps, tolerance=config.cg_tolerance)
        return neumann(matrix, b, steps=config.solve_steps, size=config.neumann_size or config.inner_lr)

    def pulled(self, learned: Tensors, phi: Tensors, u: Tensors) -> Tensors:
        """The hypergradient for η, and the gradient for θ if it is learned."""
        near = self.near(learned)
        slope = near.slope(phi)
        found = {f"l2:{name}": -(slope[name] * value).sum() for name, value in u.items()}
        return found | (near.bend(u) if self._init_lr else {})

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for η, `init_lr` for the model's parameters."""
        config = self.config
        strengths = dict.fromkeys(self._strengths(), config.outer_lr)
        rates = {name: self._init_lr for name in self.learns() if name not in strengths}
        return Outer(config.outer, strengths | rates, config.clip_norm)

    def learns(self) -> list[str]:
        """η, and the model's parameters if `init_lr` is not 0."""
        return self._strengths() + (self.model.names("adapt", "warp", "head") if self._init_lr else [])

    @property
    def _init_lr(self) -> float:
        if self.config.init_lr is None:
            return 0.001 if self.config.centre == "initialisation" else 0.0
        return self.config.init_lr

    def _strengths(self) -> list[str]:
        return [f"l2:{name}" for name in self.adapts()]
