"""Layers that several image nets use."""

from __future__ import annotations

from torch import nn

from warploom.models.conv4 import STEM_CHANNELS, Stem


def conv3x3(channels: int, filters: int, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size of the image; of few channels, the faster equal `Stem`."""
    layer = Stem if channels <= STEM_CHANNELS else nn.Conv2d
    return layer(channels, filters, 3, padding=1, bias=bias)
