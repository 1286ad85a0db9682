"""What several task families have in common. No torch here: the API reads these."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from warploom.configs import TaskConfig


def check_range(low_name: str, low: float, high_name: str, high: float) -> None:
    if low > high:
        raise ValueError(f"{low_name} must be at most {high_name}; got {low_name}={low}, {high_name}={high}")


class ImageTaskConfig(TaskConfig):
    """N-way classification of small grey images."""

    ways: int = Field(20, ge=2, le=1000, description="N, classes in a task")
    shots: int = Field(15, ge=1, le=1000, description="K, support examples per class")
    queries: int = Field(5, ge=1, le=1000, description="held-out examples per class")
    image_size: int = Field(28, ge=8, le=105, description="height and width in pixels")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.image_size, self.image_size)

    @property
    def outputs(self) -> int:
        return self.ways


class AugmentConfig(TaskConfig):
    """A random affine map for each image that is drawn for a step, and one for each query image."""

    augment: bool = Field(True, description="a fresh affine map for every image of every step")
    augment_query: bool = Field(True, description="with `augment`: one affine map for each query image")
    rotate_deg: float = Field(180.0, ge=0, le=180, description="largest rotation to either side, in degrees")
    translate: float = Field(0.2, ge=0, lt=1, description="largest shift as a fraction of the side")
    scale_min: float = Field(0.8, gt=0, le=4)
    scale_max: float = Field(1.2, gt=0, le=4)

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        check_range("scale_min", self.scale_min, "scale_max", self.scale_max)
        return self
