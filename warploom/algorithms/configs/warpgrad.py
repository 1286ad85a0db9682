"""What can be set about `warpgrad`, and what the WarpGrad algorithms have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.algorithms.configs.base import InnerLoopConfig
from warploom.configs import Role

Form = Literal["exact", "eq12", "no-step"]
Initialisation = Literal["none", "leap", "leap-simplified", "reptile", "maml"]


class WarpConfig(InnerLoopConfig):
    """The meta-objective of the warp, and its outer optimiser."""

    needs: ClassVar[frozenset[Role]] = frozenset({"adapt", "warp"})

    approximate: bool | Literal["eq12", "no-step"] = Field(
        False,
        description="true or eq12: Eq 12, no gradient through the inner step; no-step: no inner step at all, the "
        "approximation of the authors' code",
    )
    learn_rates: bool = Field(
        False,
        description="learn the inner step size of each tensor, and its momentum where there is one; the step size "
        "asked of an adaptation then scales the learned ones by its ratio to inner_lr",
    )
    outer: Literal["sgd", "adam"] = "adam"
    warp_lr: float = Field(0.001, gt=0, le=100, description="β, the outer step size for the warp layers")
    rates_lr: float = Field(0.001, gt=0, le=100, description="the outer step size for learned rates")
    record_every: int = Field(1, ge=1, le=10_000, description="learn from every n-th point of a trajectory")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of a meta-gradient; null for none")

    def beside(self, adapted: Mapping[str, int]) -> int | None:
        momentum = 1 if getattr(self.inner_optimiser, "momentum", 0) else 0
        return len(adapted) * (1 + momentum) if self.learn_rates else 0

    @property
    def form(self) -> Form:
        """Which form of the meta-objective `approximate` asks for."""
        if isinstance(self.approximate, str):
            return self.approximate
        return "eq12" if self.approximate else "exact"

    @property
    def through_inner_loop(self) -> bool:
        """Whether derivatives flow through an inner step: in Eq 11."""
        return self.form == "exact"

    @model_validator(mode="after")
    def _rates_have_a_gradient(self) -> Self:
        if self.learn_rates and self.form != "exact":
            raise ValueError("learn_rates needs the gradient through the inner step: set approximate to false")
        return self


class WarpInitConfig(WarpConfig):
    """The warp's objective, and one for the initialisation."""

    initialisation: Initialisation = Field(
        "leap",
        description="objective for the initialisation: none (fixed), leap (Eq 17 of the paper), leap-simplified "
        "(Eq 17 without the loss term), reptile, or maml (through the inner loop: memory grows with inner_steps)",
    )
    init_lr: float = Field(0.001, ge=0, le=100, description="λβ, the outer step size for the initialisation")

    @property
    def through_inner_loop(self) -> bool:
        """Whether derivatives flow through inner steps: in Eq 11, and in the objective of MAML."""
        return super().through_inner_loop or self.initialisation == "maml"


class WarpGradConfig(WarpInitConfig):
    """WarpGrad, Algorithm 2 (offline, with replay).

    The defaults are ones that train on every family here. On `sinusoid` an `inner_lr` of 0.01 or 0.02 does far better
    than the default, with which a task in twenty-five comes to diverge. The paper's Omniglot experiment has `outer` sgd
    with `inner_lr`, `warp_lr` and `init_lr` of 0.1.
    """

    summary: ClassVar[str] = "warp layers, fixed while a task adapts, meta-learned over stored trajectories"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, arXiv:1909.00025, Algorithm 2"

    name: Literal["warpgrad"] = "warpgrad"
    points_per_update: int = Field(1, ge=1, le=65_536, description="stored points in one minibatch of the outer loop")

    @property
    def points(self) -> int:
        return -(-self.inner_steps // self.record_every)
