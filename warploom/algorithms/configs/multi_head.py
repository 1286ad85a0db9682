"""What can be set about `multi-head`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.maml import OuterConfig
from warploom.configs import ModelConfig, Role, TaskConfig


class MultiHeadConfig(OuterConfig):
    """A shared trunk with a head for each training task; a new task fine-tunes all of it from a fresh head."""

    summary: ClassVar[str] = "joint training of a trunk with a head per training task, then fine-tuning"
    source: ClassVar[str] = "the fine-tuning baseline of Flennerhag et al., Leap, ICLR 2019, arXiv:1812.01054"
    needs: ClassVar[frozenset[Role]] = frozenset({"adapt", "head"})

    name: Literal["multi-head"] = "multi-head"
    outer: Literal["sgd", "adam"] = Field("sgd", description="sgd: states are averaged; adam: its step as a gradient")
    outer_lr: float = Field(1.0, gt=0, le=100, description="ε, the share of the way to the tasks' mean (outer sgd)")
    round_steps: int | None = Field(
        None, ge=1, le=10_000, description="steps of a task in one round; 1 is plain joint SGD, null is inner_steps"
    )
    fresh_head: Literal["random", "zero"] = Field("random", description="the head that a new task starts from")

    def why_unfit(self, task: TaskConfig, model: ModelConfig) -> str | None:
        return super().why_unfit(task, model) if task.finite else self.unnumbered()

    @staticmethod
    def unnumbered() -> str:
        """Why a family without numbered training tasks does not fit."""
        return "needs numbered training tasks; use glyphs, ratings, or omniglot with protocol multi-shot"

    def beside(self, adapted: Mapping[str, int]) -> int | None:  # noqa: ARG002
        return None  # a head for each training task, and only the data say how many there are
