"""What can be set about algorithms that differentiate the optimum of the inner problem."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from warploom.algorithms.configs.maml import OuterConfig
from warploom.configs import ModelConfig, TaskConfig

MOVING = {
    "continual-sine": "a task of 'continual-sine' changes its loss while it adapts",
    "maze": "the loss of 'maze' is that of walks which change with the parameters",
}


class ImplicitConfig(OuterConfig):
    """An inner problem to be solved well, by gradient steps or by Newton steps.

    With `hessian-free`, `inner_lr` is the first step size that the line search tries, in units of the Newton step; its
    default is then 1, and `inner_optimiser` is not used.
    """

    inner_lr: float = Field(
        0.1, gt=0, le=100, description="α, the step size of adaptation; default 1 when inner_solver is hessian-free"
    )
    inner_steps: int = Field(16, ge=1, le=10_000, description="K, the steps of adaptation")
    inner_solver: Literal["gradient", "hessian-free"] = Field(
        "gradient", description="gradient: steps of inner_optimiser; hessian-free: Newton-CG with a line search"
    )
    newton_cg_steps: int = Field(5, ge=1, le=1000, description="CG steps in one step of hessian-free")

    @model_validator(mode="before")
    @classmethod
    def _whole_newton_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("inner_solver") == "hessian-free":
            return {"inner_lr": 1.0, **values}
        return values

    @model_validator(mode="after")
    def _one_regulariser(self) -> Self:
        for decay in ("weight_decay", "lambd"):
            if getattr(self.inner_optimiser, decay, 0.0):
                raise ValueError(
                    f"inner_optimiser.{decay} must be 0: it would move the optimum that is differentiated; "
                    "the inner problem has a quadratic term of its own"
                )
        return self

    def why_unfit(self, task: TaskConfig, model: ModelConfig) -> str | None:
        if task.name in MOVING:
            return (
                f"differentiates the minimum of one support loss, and {MOVING[task.name]}; "
                "use sinusoid, glyphs or another family with a fixed loss, or a-maml, maml or warpgrad"
            )
        return super().why_unfit(task, model)
