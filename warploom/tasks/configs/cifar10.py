"""What can be set about `cifar10`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.tasks.configs.pictures import PictureConfig

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32


class Cifar10Config(PictureConfig):
    """CIFAR-10. `few-shot`: any N classes of a split; `rates`: all ten classes, the training set as one stream.

    The setting of learned step sizes (Grefenstette et al., section 5.1) is `rates` with shots 24 and queries 16: 15
    steps of 16 images, judged by 10 batches of 16; and `validation_share` 0.
    """

    summary: ClassVar[str] = "32 x 32 photographs of ten classes; reads the official binary files"
    source: ClassVar[str] = "Krizhevsky 2009; protocol `rates` of Grefenstette et al., arXiv:1910.01727, section 5.1"

    name: Literal["cifar10"] = "cifar10"
    protocol: Literal["few-shot", "rates"] = "few-shot"
    ways: int = Field(2, ge=2, le=8, description="N, classes in a task (few-shot); `rates` has all ten")
    shots: int = Field(5, ge=1, le=1000, description="K, support images per class (rates: 10 K images, as they come)")
    queries: int = Field(15, ge=1, le=1000, description="held-out images per class (rates: 10 times as many in all)")
    train_classes: int = Field(5, ge=2, le=10, description="classes for meta-training (few-shot)")
    validation_classes: int = Field(2, ge=0, le=8, description="classes for validation; the rest are for test")
    held_out: float = Field(0.01, gt=0, lt=0.5, description="share of the training set for the meta-loss (rates)")
    validation_share: float = Field(0.01, ge=0, lt=0.5, description="share of the training set for validation (rates)")
    split_seed: int = Field(0, ge=0, lt=2**31, description="which classes, or which images, go where")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (3, SIDE, SIDE)

    @property
    def outputs(self) -> int:
        return len(CLASSES) if self.protocol == "rates" else self.ways

    @model_validator(mode="after")
    def _ten_classes_suffice(self) -> Self:
        if self.train_classes + self.validation_classes > len(CLASSES):
            raise ValueError(
                f"train_classes + validation_classes must be at most {len(CLASSES)}; "
                f"got train_classes={self.train_classes}, validation_classes={self.validation_classes}"
            )
        if self.protocol == "few-shot" and self.ways > self.train_classes:
            raise ValueError(
                f"ways must be at most train_classes; got ways={self.ways}, train_classes={self.train_classes}"
            )
        return self
