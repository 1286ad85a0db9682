"""What can be set about `densenet`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.models.configs.base import convolution, linear, scaled
from warploom.models.configs.images import ImageNetConfig, both

BLOCKS = 4


class DenseNetConfig(ImageNetConfig):
    """Four dense blocks of depth / 4 layers, transitions between them, the mean over the image, a linear head."""

    summary: ClassVar[str] = "densely connected net of 8 convolutions in four blocks"
    source: ClassVar[str] = "Grefenstette et al., arXiv:1910.01727, section 5.2; layers of Huang et al., CVPR 2017"

    name: Literal["densenet"] = "densenet"
    depth: Literal[8] = Field(8, description="3x3 convolutions in all")
    growth: int = Field(32, ge=1, le=256, description="k, the channels that a layer adds")
    compression: float = Field(0.5, gt=0, le=1, description="the share of the channels that a transition keeps")

    @property
    def halvings(self) -> int:
        return BLOCKS - 1

    def parameters(self) -> list[str]:
        names: list[str] = []
        for i in range(BLOCKS):
            for j in range(self.depth // BLOCKS):
                names += [*(both(f"block{i}.norm{j}") if i + j else []), f"block{i}.conv{j}.weight"]
            if i < BLOCKS - 1:
                names += [*both(f"transition{i}.norm"), f"transition{i}.conv.weight"]
        return names + both("norm", "head")

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:
        channels = input_shape[0]
        found: dict[str, int] = {}
        for i in range(BLOCKS):
            for j in range(self.depth // BLOCKS):
                found |= scaled(f"block{i}.norm{j}", channels=channels) if i + j else {}
                found |= convolution(f"block{i}.conv{j}", channels, self.growth, bias=False)
                channels += self.growth
            if i < BLOCKS - 1:
                found |= scaled(f"transition{i}.norm", channels=channels)
                kept = self.kept(channels)
                found |= convolution(f"transition{i}.conv", channels, kept, 1, bias=False)
                channels = kept
        return found | scaled("norm", channels=channels) | linear("head", channels, outputs)

    def kept(self, channels: int) -> int:
        """The channels that a transition leaves of so many."""
        return max(int(self.compression * channels), 1)
