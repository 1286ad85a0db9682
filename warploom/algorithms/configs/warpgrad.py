"""What can be set about the WarpGrad algorithms."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.base import InnerLoopConfig
from warploom.configs import Role


class WarpGradConfig(InnerLoopConfig):
    """WarpGrad, Algorithm 2 (offline, with replay).

    The defaults are ones that train on every family here. The paper's Omniglot experiment has `outer` sgd with
    `inner_lr`, `warp_lr` and `init_lr` of 0.1.
    """

    summary: ClassVar[str] = "warp layers, fixed while a task adapts, meta-learned over stored trajectories"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, arXiv:1909.00025, Algorithm 2"
    needs: ClassVar[frozenset[Role]] = frozenset({"adapt", "warp"})

    name: Literal["warpgrad"] = "warpgrad"
    initialisation: Literal["none", "leap", "leap-simplified"] = Field(
        "leap",
        description="objective for the initialisation: fixed, Eq 17 of the paper, or Eq 17 without the loss term",
    )
    approximate: bool = Field(False, description="Eq 12: no gradient through the inner step")
    outer: Literal["sgd", "adam"] = "adam"
    warp_lr: float = Field(0.001, gt=0, le=100, description="β, the outer step size for the warp layers")
    init_lr: float = Field(0.001, ge=0, le=100, description="λβ, the outer step size for the initialisation")
    points_per_update: int = Field(1, ge=1, le=65_536, description="stored points in one minibatch of the outer loop")
    record_every: int = Field(1, ge=1, le=10_000, description="store every n-th point of a trajectory")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of a meta-gradient; null for none")
