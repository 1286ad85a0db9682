"""What every algorithm with an inner loop can be told. No torch here: the API reads these."""

from __future__ import annotations

from pydantic import Field

from warploom.configs import AlgorithmConfig
from warploom.optim.configs import AnyInnerOptimiser, SGDConfig


class InnerLoopConfig(AlgorithmConfig):
    """The inner loop: gradient steps on the adaptable parameters of one task."""

    inner_lr: float = Field(0.05, gt=0, le=100, description="α, the step size of adaptation")
    inner_steps: int = Field(20, ge=1, le=10_000, description="K, the steps of adaptation")
    inner_batch: int | None = Field(
        None, ge=1, le=65_536, description="support examples per step, drawn anew each step; null for all of them"
    )
    inner_optimiser: AnyInnerOptimiser = Field(SGDConfig(), description="the rule of the inner step")
