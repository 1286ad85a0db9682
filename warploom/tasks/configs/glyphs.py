"""What can be set about `glyphs`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.tasks.configs.base import AugmentConfig, ImageTaskConfig


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

    @property
    def finite(self) -> bool:
        return True
