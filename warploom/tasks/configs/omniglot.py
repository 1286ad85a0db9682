"""What can be set about `omniglot`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.tasks.configs.base import AugmentConfig, ImageTaskConfig

OMNIGLOT_DRAWINGS = 20


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

    @property
    def finite(self) -> bool:
        return self.protocol == "multi-shot"

    @model_validator(mode="after")
    def _drawings_suffice(self) -> Self:
        if self.shots + self.queries > OMNIGLOT_DRAWINGS:
            raise ValueError(
                f"shots + queries must be at most {OMNIGLOT_DRAWINGS}, the drawings that a character has; "
                f"got shots={self.shots}, queries={self.queries}"
            )
        return self
