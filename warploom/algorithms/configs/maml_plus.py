"""What can be set about `maml++`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.algorithms.configs.maml import UnrolledConfig


class MAMLPlusConfig(UnrolledConfig):
    """MAML++: MAML with a loss after every step, annealed derivatives, and learned rates and norms for each step.

    Each extra can be turned off; with all of them off it is `maml`. Lengths are in outer rounds. Their defaults are
    those of the authors' Omniglot runs (50,000 rounds in epochs of 500), but for `first_order_rounds`, which is off
    there; for shorter runs give shorter lengths.
    """

    summary: ClassVar[str] = "MAML with a loss after each step, annealing, and rates and norms learned for each step"
    source: ClassVar[str] = "Antoniou, Edwards, Storkey, ICLR 2019, arXiv:1810.09502"

    name: Literal["maml++"] = "maml++"
    inner_lr: float = Field(0.1, gt=0, le=100, description="α, where the step sizes of adaptation start")
    multi_step_rounds: int = Field(
        5_000,
        ge=0,
        le=10_000_000,
        description="the rounds over which the loss after every step gives way to that after the last; 0: off",
    )
    first_order_rounds: int = Field(
        500, ge=0, le=10_000_000, description="rounds at the start that take inner gradients as constants; 0: off"
    )
    per_step_rates: bool = Field(True, description="learn a step size for each tensor at each step")
    rates_lr: float = Field(0.001, gt=0, le=100, description="the outer step size of the learned step sizes")
    per_step_norms: bool = Field(
        True, description="learn scale and shift of batch normalisation for each step, and do not adapt them"
    )
    per_step_stats: bool = Field(True, description="running statistics for each step (only where bn_mode is running)")
    cosine_rounds: int | None = Field(
        50_000,
        ge=1,
        le=10_000_000,
        description="the rounds over which the outer step sizes fall along half a cosine; null: they stay",
    )
    outer_lr_min: float = Field(1e-5, ge=0, le=100, description="where outer_lr ends, with cosine_rounds")

    @model_validator(mode="after")
    def _rate_falls(self) -> Self:
        if self.cosine_rounds is not None and self.outer_lr_min > self.outer_lr:
            raise ValueError(
                f"outer_lr_min must be at most outer_lr; got outer_lr_min={self.outer_lr_min}, outer_lr={self.outer_lr}"
            )
        return self

    def beside(self, adapted: Mapping[str, int]) -> int | None:
        norms = {name: size for name, size in adapted.items() if self.per_step_norms and "norm" in name}
        rates = len(adapted) - len(norms) if self.per_step_rates else 0
        return self.inner_steps * (rates + sum(norms.values()))
