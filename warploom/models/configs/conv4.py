"""What can be set about `conv4` and `warp_conv4`."""

from __future__ import annotations

from math import prod
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.configs import Role
from warploom.models.configs.base import WARPED, Activation, NormConfig, PatternConfig, convolution, linear, scaled

WEIGHTS = ("weight", "bias")


class Conv4Config(NormConfig, PatternConfig):
    """Blocks of 3x3 convolution, 2x2 max-pooling (or a stride), batch normalisation, activation; then a linear head."""

    summary: ClassVar[str] = "the four-block convolutional net of few-shot learning"
    source: ClassVar[str] = "Vinyals et al. 2016; order of layers as in Leap and WarpGrad"

    name: Literal["conv4"] = "conv4"
    layers: int = Field(4, ge=1, le=8)
    filters: int = Field(64, ge=1, le=1024)
    activation: Activation = "relu"
    downsample: Literal["pool", "stride"] = Field(
        "pool",
        description="how a block halves the image: pool, 2x2 max-pooling; stride, a convolution of stride 2, with the "
        "mean over what is left of the image before the head, as MAML has it for Omniglot",
    )

    def parameters(self) -> list[str]:
        blocks = [f"{part}{i}.{kind}" for i in range(self.layers) for part in ("conv", "norm") for kind in WEIGHTS]
        return [*blocks, *(f"head.{kind}" for kind in WEIGHTS)]

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:
        channels, *sides = input_shape
        found: dict[str, int] = {}
        for i in range(self.layers):
            found |= convolution(f"conv{i}", channels, self.filters)
            found |= scaled(f"norm{i}", channels=self.filters) | self.after(i)
            channels = self.filters
        pixels = prod(side // 2**self.layers for side in sides) if self.downsample == "pool" else 1
        return found | self.head(channels * pixels, outputs)

    def after(self, i: int) -> dict[str, int]:  # noqa: ARG002
        """Sizes of what stands behind block i."""
        return {}

    def head(self, features: int, outputs: int) -> dict[str, int]:
        """Sizes of the head."""
        return linear("head", features, outputs)

    def why_unfit(self, input_shape: tuple[int, ...], outputs: int) -> str | None:  # noqa: ARG002
        if len(input_shape) != 3:
            return f"takes images (channels, height, width), not inputs of shape {input_shape}; use mlp or warp_mlp"
        smallest = 2**self.layers if self.downsample == "pool" else 1
        if min(input_shape[1:]) < smallest:
            return (
                f"halves the image {self.layers} times and so needs {smallest} pixels a side, not "
                f"{min(input_shape[1:])}; use fewer layers or larger images"
            )
        return None


class WarpConv4Config(Conv4Config):
    """`conv4` with a warp layer after each block, held fixed while a task adapts."""

    summary: ClassVar[str] = "conv4 with a warp layer after each block: a convolution, a scaling or a gate"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, section 4, Figure 6 and appendix F"
    provides: ClassVar[frozenset[Role]] = WARPED

    name: Literal["warp_conv4"] = "warp_conv4"  # type: ignore[assignment]
    warp_kind: Literal["conv", "film", "gate"] = Field(
        "conv",
        description="a convolution; film: a scale and a shift for each channel; gate: the input times an activation of "
        "a convolution of it",
    )
    warp_kernel: Literal[1, 3] = Field(3, description="side of the warp's convolutions")
    warp_layers: int = Field(1, ge=1, le=4, description="warp layers after each block, one behind the other")
    warp_activation: Activation | None = Field(
        None,
        description="after the convolution or the scaling; of a gate, what its input is multiplied by, null for "
        "sigmoid",
    )
    warp_batch_norm: bool = Field(False, description="normalise the input of the warp layer")
    warp_residual: bool = Field(
        False, description="add the warp layer's input to its output, and normalise the sum too"
    )
    warp_init: Literal["random", "identity"] = Field(
        "random",
        description="how the warp's convolutions start: random, as the net's others do; identity, so that the warped "
        "net starts as the plain one",
    )
    warp_final_head: bool = Field(False, description="an adaptable linear layer, then a warp layer to the classes")

    @model_validator(mode="after")
    def _gates_are_no_identity(self) -> Self:
        if self.warp_init == "identity" and self.warp_kind == "gate":
            raise ValueError("a gate cannot start as the identity: set warp_init to random, or another warp_kind")
        return self

    def parameters(self) -> list[str]:
        """The blocks' own parameters, and the adaptable part of the head; the warp layers' need no pattern."""
        names = super().parameters()
        return [name.replace("head.", "head.0.") for name in names] if self.warp_final_head else names

    def after(self, i: int) -> dict[str, int]:
        """Sizes of the warp layers behind block i."""
        many = self.warp_layers > 1
        layers = [self._warp(f"warp{i}.{j}" if many else f"warp{i}") for j in range(self.warp_layers)]
        return {name: size for layer in layers for name, size in layer.items()}

    def _warp(self, name: str) -> dict[str, int]:
        width = self.filters
        found = scaled(f"{name}.norm_in", channels=width) if self.warp_batch_norm else {}
        if self.warp_kind == "film":
            found |= scaled(f"{name}.body", channels=width)
        else:
            found |= convolution(f"{name}.body.0", width, width, self.warp_kernel)
        if self.warp_residual and self.warp_batch_norm:
            found |= scaled(f"{name}.norm_out", channels=width)
        return found

    def head(self, features: int, outputs: int) -> dict[str, int]:
        """Sizes of the head, in two parts where it is warped."""
        if not self.warp_final_head:
            return super().head(features, outputs)
        return linear("head.0", features, self.filters) | linear("head.1", self.filters, outputs)

    def plain_role(self, name: str) -> Role:
        warped = name.startswith("warp") or (self.warp_final_head and name.startswith("head.1"))
        return "warp" if warped else super().plain_role(name)
