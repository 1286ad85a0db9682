"""What can be set about `continual-sine`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.configs import Kind, TaskConfig
from warploom.tasks.configs.base import check_range

INTERVALS = 5


class ContinualSineConfig(TaskConfig):
    """A mixture of two sine waves on [-5, 5], met one fifth after the other.

    Amplitudes, frequencies and the mixture are this project's choice: the paper's are not known.
    """

    kind: ClassVar[Kind] = "regression"
    summary: ClassVar[str] = "a mixture of two sine waves, learned on one fifth of the interval after the other"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, arXiv:1909.00025, continual learning; numbers are our own"

    name: Literal["continual-sine"] = "continual-sine"
    shots: int = Field(20, ge=1, le=10_000, description="support points of each sub-task")
    queries: int = Field(20, ge=1, le=10_000, description="held-out points of each sub-task")
    order: tuple[int, ...] = Field(
        (0, 1, 2, 3, 4), description="the sub-intervals, counted from the left, in the order in which they are met"
    )
    amplitude_min: float = Field(0.1, ge=0, le=100)
    amplitude_max: float = Field(2.0, gt=0, le=100)
    frequency_min: float = Field(0.5, gt=0, le=100, description="radians per unit of x")
    frequency_max: float = Field(2.0, gt=0, le=100, description="radians per unit of x")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if sorted(self.order) != list(range(INTERVALS)):
            raise ValueError(f"order must hold each of 0, 1, 2, 3, 4 once; got {list(self.order)}")
        check_range("amplitude_min", self.amplitude_min, "amplitude_max", self.amplitude_max)
        check_range("frequency_min", self.frequency_min, "frequency_max", self.frequency_max)
        return self

    @property
    def phases(self) -> int:
        """Sub-tasks that follow each other while a task adapts."""
        return INTERVALS

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def outputs(self) -> int:
        return 1
