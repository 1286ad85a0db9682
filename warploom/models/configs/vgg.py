"""What can be set about `vgg`."""

from __future__ import annotations

from math import prod
from typing import ClassVar, Literal

from pydantic import Field

from warploom.models.configs.base import convolution, linear, scaled
from warploom.models.configs.images import ImageNetConfig, both


class VGGConfig(ImageNetConfig):
    """Blocks of 3x3 convolution, batch normalisation, activation, 2x2 max-pooling; then a linear head."""

    summary: ClassVar[str] = "the four-block net of MAML++: normalises before it pools"
    source: ClassVar[str] = "Antoniou, Edwards, Storkey, ICLR 2019; 'base' of Grefenstette et al., arXiv:1910.01727"

    name: Literal["vgg"] = "vgg"
    layers: int = Field(4, ge=1, le=8)
    filters: int = Field(64, ge=1, le=1024, description="of each block; 64 for Omniglot, 48 for miniImageNet")

    @property
    def halvings(self) -> int:
        return self.layers

    def parameters(self) -> list[str]:
        return [name for i in range(self.layers) for name in both(f"conv{i}", f"norm{i}")] + both("head")

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:
        channels, *sides = input_shape
        found: dict[str, int] = {}
        for i in range(self.layers):
            found |= convolution(f"conv{i}", channels, self.filters) | scaled(f"norm{i}", channels=self.filters)
            channels = self.filters
        pixels = prod(side // 2**self.layers for side in sides)
        return found | linear("head", channels * pixels, outputs)
