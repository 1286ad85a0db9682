"""What can be set about `image-folder`."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from warploom.tasks.configs.pictures import PictureConfig


class ImageFolderConfig(PictureConfig):
    """Pictures in class folders. `few-shot`: any N classes of a split; `multi-shot`: fixed groups of N classes.

    The defaults are those of miniImageNet, 5-way 1-shot, once its pictures lie in `train`, `val` and `test`.
    """

    summary: ClassVar[str] = "class folders of pictures: miniImageNet, tieredImageNet, your own"
    source: ClassVar[str] = "Vinyals et al. 2016, split of Ravi and Larochelle, ICLR 2017; Ren et al., ICLR 2018"

    name: Literal["image-folder"] = "image-folder"
    folder: str = Field(
        "miniimagenet",
        min_length=1,
        max_length=500,
        description="path under the data folder that holds <class>/*.png|jpg, or train, val and test with such classes",
    )
    protocol: Literal["few-shot", "multi-shot"] = "few-shot"
    ways: int = Field(5, ge=2, le=1000, description="N, classes in a task")
    shots: int = Field(1, ge=1, le=10_000, description="K, support pictures per class")
    queries: int = Field(15, ge=1, le=10_000, description="held-out pictures per class")
    image_size: int = Field(84, ge=8, le=512, description="height and width in pixels")
    colour: bool = Field(True, description="three channels; false for one, grey")
    fit: Literal["squash", "crop"] = Field(
        "squash", description="pictures that are not square: squash: change the aspect; crop: take the middle"
    )
    splits: Literal["auto", "folders", "seed"] = Field(
        "auto",
        description="folders: classes as train, val and test hold them; seed: all classes, dealt by split_seed; "
        "auto: folders where train holds class folders",
    )
    test_share: float = Field(0.2, ge=0, lt=1, description="share of the classes for test (splits seed)")
    validation_share: float = Field(0.16, ge=0, lt=1, description="share of the classes for validation (splits seed)")
    split_seed: int = Field(0, ge=0, lt=2**31, description="which classes go where, and together (multi-shot)")
    cache_bytes: int = Field(
        2 * 2**30, ge=0, le=2**42, description="decoded pictures kept in memory; others are decoded at each use"
    )

    @property
    def finite(self) -> bool:
        return self.protocol == "multi-shot"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (3 if self.colour else 1, self.image_size, self.image_size)

    @property
    def outputs(self) -> int:
        return self.ways

    @field_validator("folder")
    @classmethod
    def _under_the_data_folder(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or any(sign in value for sign in "\\:\0"):
            raise ValueError(f"must be a path under the data folder, without '..'; got {value!r}")
        return value

    @model_validator(mode="after")
    def _some_classes_are_for_training(self) -> Self:
        if self.test_share + self.validation_share >= 1:
            raise ValueError(
                "test_share + validation_share must be below 1; "
                f"got test_share={self.test_share}, validation_share={self.validation_share}"
            )
        return self
