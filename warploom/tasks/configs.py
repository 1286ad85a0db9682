"""What can be set about each task family. No torch here: the API reads these."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.configs import Kind, TaskConfig

OMNIGLOT_DRAWINGS = 20


def _check_range(low_name: str, low: float, high_name: str, high: float) -> None:
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
        _check_range("scale_min", self.scale_min, "scale_max", self.scale_max)
        return self


class OmniglotConfig(ImageTaskConfig, AugmentConfig):
    """Omniglot. `multi-shot`: a task is one alphabet (20 characters of it); `few-shot`: any N characters.

    The few-shot papers use no augmentation beyond quarter turns: set `augment` to false to do as they do.
    """

    summary: ClassVar[str] = "handwritten characters of 50 alphabets; reads the official archives"
    source: ClassVar[str] = "Lake, Salakhutdinov, Tenenbaum, Science 2015; protocol of Leap and WarpGrad"

    name: Literal["omniglot"] = "omniglot"
    protocol: Literal["multi-shot", "few-shot"] = "multi-shot"
    train_alphabets: int = Field(25, ge=1, le=40, description="alphabets for meta-training (multi-shot)")
    test_alphabets: int = Field(10, ge=1, le=20, description="held-out alphabets (multi-shot)")
    split_seed: int = Field(0, ge=0, lt=2**31, description="which alphabets go where")

    @model_validator(mode="after")
    def _drawings_suffice(self) -> Self:
        if self.shots + self.queries > OMNIGLOT_DRAWINGS:
            raise ValueError(
                f"shots + queries must be at most {OMNIGLOT_DRAWINGS}, the drawings that a character has; "
                f"got shots={self.shots}, queries={self.queries}"
            )
        return self


class GlyphsConfig(ImageTaskConfig, AugmentConfig):
    """Generated handwriting: alphabets of random stroke characters, written by several hands."""

    summary: ClassVar[str] = "generated handwriting: unlimited alphabets, nothing to download"
    source: ClassVar[str] = "Warploom's own generator"

    name: Literal["glyphs"] = "glyphs"
    ways: int = Field(10, ge=2, le=60, description="N, characters of one alphabet in a task")
    hands: int = Field(20, ge=2, le=1000, description="writers of an alphabet; some are held out for the queries")
    alphabets: int = Field(40, ge=1, le=100_000, description="alphabets for meta-training")
    rotate_deg: float = Field(15.0, ge=0, le=180, description="largest rotation to either side, in degrees")
    translate: float = Field(0.1, ge=0, lt=1, description="largest shift as a fraction of the side")
    world_seed: int = Field(0, ge=0, lt=2**31, description="which alphabets exist")


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
        _check_range("amplitude_min", self.amplitude_min, "amplitude_max", self.amplitude_max)
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def outputs(self) -> int:
        return 1
