"""What can be set about `warpgrad-online`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.warpgrad import WarpInitConfig


class WarpGradOnlineConfig(WarpInitConfig):
    """WarpGrad, Algorithm 1 (online): one step of the warp for each batch of tasks, and nothing is stored."""

    summary: ClassVar[str] = "warp layers meta-learned while the tasks adapt, in memory that does not grow with steps"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, arXiv:1909.00025, Algorithm 1"

    name: Literal["warpgrad-online"] = "warpgrad-online"
    warp_lr: float = Field(0.01, gt=0, le=100, description="β, the outer step size for the warp layers")
