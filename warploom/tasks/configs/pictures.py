"""What families of photographs have in common. No torch here: the API reads these."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from warploom.tasks.configs.base import AugmentConfig

Scale = Annotated[float, Field(gt=0, le=1000)]
Offset = Annotated[float, Field(ge=-1000, le=1000)]


class PictureConfig(AugmentConfig):
    """Photographs as numbers: x = (pixel / 255 − mean) / std for each channel; and, if asked for, affine maps.

    What an affine map brings in from outside is 0, which is black without `mean` and the mean colour with it.
    """

    augment: bool = Field(False, description="a fresh affine map for every image of every step")
    rotate_deg: float = Field(15.0, ge=0, le=180, description="largest rotation to either side, in degrees")
    translate: float = Field(0.1, ge=0, lt=1, description="largest shift as a fraction of the side")
    mean: tuple[Offset, ...] = Field(
        (0.0,),
        min_length=1,
        max_length=3,
        description="of pixels in [0, 1], one for all channels or one for each; ImageNet: 0.485, 0.456, 0.406",
    )
    std: tuple[Scale, ...] = Field(
        (1.0,), min_length=1, max_length=3, description="like mean; ImageNet: 0.229, 0.224, 0.225"
    )

    @model_validator(mode="after")
    def _one_number_or_one_for_each_channel(self) -> Self:
        channels = self.input_shape[0]
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, channels):
                raise ValueError(f"{name} must have 1 number or {channels}, the channels; got {len(numbers)}")
        return self
