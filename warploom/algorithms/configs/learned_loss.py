"""What can be set about `learned-loss`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.windows import WindowConfig
from warploom.configs import ModelConfig, TaskConfig
from warploom.models.configs.base import Activation


class LearnedLossConfig(WindowConfig):
    """ML3: a loss net drives adaptation, learned by backpropagation through the inner loop.

    The paper's sine experiment has `base` none, one inner step, and all step sizes 0.001.
    """

    summary: ClassVar[str] = "the loss of the inner loop: a small net, by backpropagation through the loop"
    source: ClassVar[str] = "Bechtle et al., ML3, 2019, arXiv:1906.05374"

    name: Literal["learned-loss"] = "learned-loss"
    base: Literal["task", "none"] = Field(
        "task", description="task: the family's loss plus the net, which starts flat; none: the net alone"
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (50, 50), min_length=1, max_length=8, description="widths of the loss net"
    )
    activation: Activation = "relu"
    loss_lr: float = Field(0.01, gt=0, le=100, description="outer step size for the loss net")

    def why_unfit(self, task: TaskConfig, model: ModelConfig) -> str | None:
        return self.no_pairs(task) if task.own_loss else super().why_unfit(task, model)

    @staticmethod
    def no_pairs(task: TaskConfig) -> str:
        """Why a family with a loss of another kind does not fit."""
        return (
            f"learns from pairs of prediction and target, and task {task.name!r} has a loss of another kind; "
            "use sinusoid, ratings, or any family of classification"
        )

    def beside(self, adapted: Mapping[str, int]) -> int | None:  # noqa: ARG002
        widths = (2, *self.hidden, 1)
        return sum(wide * out for wide, out in itertools.pairwise(widths))
