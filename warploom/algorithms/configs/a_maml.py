"""What can be set about `a-maml`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.algorithms.configs.maml import OuterConfig


class AMAMLConfig(OuterConfig):
    """A-MAML: the initialisation, by the adjoint of the gradient flow over stored states.

    The inner loop is plain gradient descent, which is Euler's method with step h = `inner_lr`. The authors' code for
    functions: inner_lr 0.01, outer sgd at 0.01, 5 tasks per round, `proximal` and `outer_proximal` 1.
    """

    summary: ClassVar[str] = "the initialisation, by the adjoint of the gradient flow; memory for the states alone"
    source: ClassVar[str] = "Li, Wang, Narayan, Kirby, Zhe, AISTATS 2023, arXiv:2110.08432"

    name: Literal["a-maml"] = "a-maml"
    inner_lr: float = Field(0.01, gt=0, le=100, description="h, the step size of adaptation")
    inner_steps: int = Field(50, ge=1, le=10_000, description="n, the steps of adaptation")
    rule: Literal["euler", "heun"] = Field(
        "euler", description="euler: the exact gradient of the steps taken; heun: of second order in h for the flow"
    )
    proximal: float = Field(0.0, ge=0, le=1e6, description="μ of μ/2 ‖u − θ‖² in the inner loss")
    outer_proximal: float = Field(0.0, ge=0, le=1e6, description="μ of μ/2 ‖u − θ‖² in the loss of the queries")

    @model_validator(mode="after")
    def _a_flow(self) -> Self:
        rule = self.inner_optimiser
        if rule.name != "sgd" or rule.momentum or rule.weight_decay:
            raise ValueError(
                "inner_optimiser must be sgd without momentum and weight_decay: the adjoint is that of the gradient "
                "flow; maml differentiates any other"
            )
        return self
