"""What can be set about `sinusoid`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.configs import Kind, TaskConfig
from warploom.tasks.configs.base import check_range


class SinusoidConfig(TaskConfig):
    """y = A sin(x + φ) with A and φ drawn per task."""

    kind: ClassVar[Kind] = "regression"
    summary: ClassVar[str] = "sine waves of random amplitude and phase"
    source: ClassVar[str] = "Finn, Abbeel, Levine, ICML 2017, section 5.1"

    name: Literal["sinusoid"] = "sinusoid"
    shots: int = Field(10, ge=1, le=10_000, description="K, support points")
    queries: int = Field(50, ge=1, le=10_000, description="held-out points")
    amplitude_min: float = Field(0.1, ge=0, le=100)
    amplitude_max: float = Field(5.0, gt=0, le=100)
    phase_max_rad: float = Field(3.141592653589793, gt=0, le=6.283185307179586)
    x_max: float = Field(5.0, gt=0, le=100, description="x is uniform on [-x_max, x_max]")

    @model_validator(mode="after")
    def _amplitude_is_a_range(self) -> Self:
        check_range("amplitude_min", self.amplitude_min, "amplitude_max", self.amplitude_max)
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def outputs(self) -> int:
        return 1
