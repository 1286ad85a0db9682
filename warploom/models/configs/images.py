"""What the deeper image nets (`vgg`, `resnet`, `densenet`) have in common. No torch here: the API reads these."""

from __future__ import annotations

from warploom.models.configs.base import Activation, NormConfig, PatternConfig

WEIGHTS = ("weight", "bias")


class ImageNetConfig(NormConfig, PatternConfig):
    """A net of images that halves them a number of times."""

    activation: Activation = "relu"

    @property
    def halvings(self) -> int:
        """How often the image is halved."""
        raise NotImplementedError(f"{type(self).__name__} does not say how often it halves an image")

    def why_unfit(self, input_shape: tuple[int, ...], outputs: int) -> str | None:
        if len(input_shape) != 3:
            return f"takes images (channels, height, width), not inputs of shape {input_shape}; use mlp or warp_mlp"
        smallest, side = 2**self.halvings, min(input_shape[1:])
        if side < smallest:
            return (
                f"halves the image {self.halvings} times and so needs {smallest} pixels a side, not {side}; use larger "
                "images, or conv4 with fewer layers"
            )
        return super().why_unfit(input_shape, outputs)


def both(*layers: str) -> list[str]:
    """The names of the weight and the bias of each layer."""
    return [f"{layer}.{kind}" for layer in layers for kind in WEIGHTS]
