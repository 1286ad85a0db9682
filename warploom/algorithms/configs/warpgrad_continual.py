"""What can be set about `warpgrad-continual`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.warpgrad import WarpConfig


class WarpGradContinualConfig(WarpConfig):
    """WarpGrad, Algorithm 3 (continual): the warp moves every η steps of a learner that goes on living.

    Plain gradient descent in the outer loop, because its steps are taken where the learner lives.
    """

    summary: ClassVar[str] = "warp layers that move every few steps of a live learner, without episodes"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, arXiv:1909.00025, Algorithm 3"

    name: Literal["warpgrad-continual"] = "warpgrad-continual"
    eta: int = Field(
        10, ge=1, le=10_000, description="η, inner steps between two moves of the warp; it also moves as a task ends"
    )
    initialisation: Literal["none", "live"] = Field(
        "live",
        description="live: the next task starts where this one ended, optimiser state included; none: each task "
        "starts from the same fixed parameters",
    )
    outer: Literal["sgd"] = "sgd"
    warp_lr: float = Field(0.01, gt=0, le=100, description="β, the outer step size for the warp layers")
    clip_norm: float | None = Field(10.0, gt=0, description="largest norm of a meta-gradient; null for none")

    def beside(self, adapted: Mapping[str, int]) -> int | None:
        state = self.inner_optimiser.state_size(sum(adapted.values())) if self.initialisation == "live" else 0
        return (super().beside(adapted) or 0) + state
