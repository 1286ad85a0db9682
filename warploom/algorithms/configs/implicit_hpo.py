"""What can be set about `implicit-hpo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.algorithms.configs.implicit import ImplicitConfig


class ImplicitHPOConfig(ImplicitConfig):
    """Continuous hyper-parameters by implicit differentiation: how strongly each parameter tensor is held in place.

    The inner problem is L_S(φ) + ½ Σ_p exp(η_p) ‖φ_p − c_p‖²; meta-training learns η, which is called `l2:<parameter>`.
    """

    summary: ClassVar[str] = "strengths of L2 regularisation, one for each parameter tensor, by the implicit gradient"
    source: ClassVar[str] = "Lorraine, Vicol, Duvenaud, AISTATS 2020, arXiv:1911.02590"

    name: Literal["implicit-hpo"] = "implicit-hpo"
    centre: Literal["initialisation", "zero"] = Field(
        "initialisation", description="what the adapted parameters are held near: θ, or 0 (weight decay)"
    )
    l2: float = Field(0.5, gt=0, le=1e6, description="exp(η) before meta-training, for every parameter tensor")
    outer_lr: float = Field(0.01, gt=0, le=100, description="β for η, on the logarithmic scale")
    init_lr: float | None = Field(
        None,
        ge=0,
        le=100,
        description="outer step size for θ and for what the inner loop holds fixed; default 0.001, and 0 with centre "
        "zero, where the optimum does not depend on θ",
    )
    solver: Literal["cg", "neumann"] = Field("cg", description="how the inverse Hessian is applied")
    solve_steps: int = Field(10, ge=0, le=10_000, description="Hessian products of one meta-gradient")
    cg_tolerance: float = Field(1e-6, ge=0, lt=1, description="relative residual at which CG stops")
    neumann_size: float | None = Field(
        None, gt=0, le=100, description="a in a Σ (I − a A)^j; default inner_lr; below 2 / (largest eigenvalue of A)"
    )

    @model_validator(mode="after")
    def _initialisation_matters(self) -> Self:
        if self.centre == "zero" and self.init_lr:
            raise ValueError("init_lr must be 0 with centre zero: the inner optimum does not depend on θ there")
        return self

    def beside(self, adapted: Mapping[str, int]) -> int | None:
        return len(adapted)
