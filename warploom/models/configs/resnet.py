"""What can be set about `resnet`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from warploom.models.configs.base import convolution, linear, scaled
from warploom.models.configs.images import ImageNetConfig, both

STAGES = 4
Width = Annotated[int, Field(ge=1, le=1024)]


class ResNetConfig(ImageNetConfig):
    """Four residual stages of depth / 4 convolutions each; then the mean over the image and a linear head."""

    summary: ClassVar[str] = "residual net of 4, 8 or 12 convolutions in four stages"
    source: ClassVar[str] = "Grefenstette et al., arXiv:1910.01727, section 5.2; stages as in Oreshkin et al. 2018"

    name: Literal["resnet"] = "resnet"
    depth: Literal[4, 8, 12] = Field(4, description="3x3 convolutions in all")
    widths: tuple[Width, Width, Width, Width] = Field(
        (64, 64, 64, 64), description="filters of each stage; the usual ResNet-12 has 64, 128, 256, 512"
    )

    @property
    def halvings(self) -> int:
        return STAGES

    def parameters(self) -> list[str]:
        names: list[str] = []
        for i in range(STAGES):
            for j in range(self.depth // STAGES):
                names += [f"stage{i}.conv{j}.weight", *both(f"stage{i}.norm{j}")]
            names += [f"stage{i}.shortcut.weight", *both(f"stage{i}.shortcut_norm")]
        return names + both("head")

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:
        channels = input_shape[0]
        found: dict[str, int] = {}
        for i, width in enumerate(self.widths):
            for j in range(self.depth // STAGES):
                found |= convolution(f"stage{i}.conv{j}", width if j else channels, width, bias=False)
                found |= scaled(f"stage{i}.norm{j}", channels=width)
            found |= convolution(f"stage{i}.shortcut", channels, width, 1, bias=False)
            found |= scaled(f"stage{i}.shortcut_norm", channels=width)
            channels = width
        return found | linear("head", channels, outputs)
