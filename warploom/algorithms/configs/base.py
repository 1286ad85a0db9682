"""What every algorithm with an inner loop can be told. No torch here: the API reads these."""

from __future__ import annotations

from pydantic import Field

from warploom.configs import AlgorithmConfig, ModelConfig, TaskConfig
from warploom.optim.configs import AnyInnerOptimiser, SGDConfig, differentiable


class InnerLoopConfig(AlgorithmConfig):
    """The inner loop: gradient steps on the adaptable parameters of one task."""

    inner_lr: float = Field(0.05, gt=0, le=100, description="α, the step size of adaptation")
    inner_steps: int = Field(20, ge=1, le=10_000, description="K, the steps of adaptation")
    inner_batch: int | None = Field(
        None, ge=1, le=65_536, description="support examples per step, drawn anew each step; null for all of them"
    )
    inner_optimiser: AnyInnerOptimiser = Field(SGDConfig(), description="the rule of the inner step")

    @property
    def through_inner_loop(self) -> bool:
        """Whether derivatives flow through the inner steps, which then must have some (`warploom.optim.gimli`)."""
        return False

    def why_unfit(self, task: TaskConfig, model: ModelConfig) -> str | None:
        return self.why_not_through() or super().why_unfit(task, model)

    def why_not_through(self) -> str | None:
        """Why derivatives cannot flow through the inner optimiser, where they have to; None when they can."""
        rule = self.inner_optimiser
        if not self.through_inner_loop or rule.differentiable_in_gradient:
            return None
        return (
            f"learns through the inner loop, and requirement II for that fails: {rule.name} {rule.why_not}; "
            f"inner optimisers that fit: {', '.join(differentiable())}"
        )
