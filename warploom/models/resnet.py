"""Residual nets of 4, 8 or 12 convolutions for few-shot learning.

Four stages, each of n = depth / 4 convolutions. With h the input of a stage, c_1..c_n its 3x3 convolutions (padding 1,
no bias), N batch normalisation and a the activation,

    u_0 = h,  u_j = a(N_j(c_j(u_{j−1}))) for j < n,  out = maxpool2x2(a(N_n(c_n(u_{n−1})) + N_s(s(h)))),

where s is a 1x1 convolution without bias. After the stages come the mean over the image and a linear head. Depth
counts neither shortcuts nor the head.

Source: Grefenstette et al., arXiv:1910.01727, section 5.2 and its table of "resnet-4", "-8", "-12". The paper names
them by depth and says no more that we could read; we chose the ResNet-12 of the few-shot literature (Oreshkin et al.
2018: four blocks of three convolutions, pooling after each) and kept its four stages at smaller depth.
Departures: every stage has 64 filters by default, as the `vgg` that it is compared with, so that depth is all that
changes; the usual ResNet-12 doubles them (`widths`). The scales of N_n and N_s start at 1/√2: their sum then starts
with the variance of one of them, and bears the inner step sizes that `vgg` bears.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from warploom.configs import TaskConfig
from warploom.models.base import BatchNorm, Model, activation, make_model
from warploom.models.configs.resnet import STAGES, ResNetConfig
from warploom.models.layers import conv3x3


class Stage(nn.Module):
    """n convolutions with a shortcut around them, then a 2x2 max-pooling."""

    def __init__(self, channels: int, width: int, *, layers: int, act: str) -> None:
        super().__init__()
        self.layers = layers
        for j in range(layers):
            self.add_module(f"conv{j}", conv3x3(width if j else channels, width, bias=False))
            self.add_module(f"norm{j}", BatchNorm(width))
        self.shortcut = nn.Conv2d(channels, width, 1, bias=False)
        self.shortcut_norm = BatchNorm(width)
        for norm in (self.get_submodule(f"norm{layers - 1}"), self.shortcut_norm):
            nn.init.constant_(cast("BatchNorm", norm).weight, math.sqrt(0.5))
        self.act = activation(act)
        self.pool = nn.MaxPool2d(2)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] → [B, width, H // 2, W // 2]."""
        u = h_BCHW
        for j in range(self.layers):
            u = self.get_submodule(f"norm{j}")(self.get_submodule(f"conv{j}")(u))
            if j == self.layers - 1:
                u = u + self.shortcut_norm(self.shortcut(h_BCHW))
            u = self.act(u)
        out: Tensor = self.pool(u)
        return out


def build_resnet(config: ResNetConfig, task: TaskConfig) -> Model:
    """All but the head has role adapt, unless a pattern says warp.

    Example:
        >>> from warploom.tasks.configs.glyphs import GlyphsConfig
        >>> model = build_resnet(ResNetConfig(depth=8, warp_pattern=("stage*.conv1.*",)), GlyphsConfig())
        >>> len(model.names("warp"))
        4
    """
    return make_model(lambda: _net(config, task), config.role, task.kind, bn_mode=config.bn_mode)


def _net(config: ResNetConfig, task: TaskConfig) -> nn.Module:
    net = nn.Sequential()
    channels = task.input_shape[0]
    for i, width in enumerate(config.widths):
        stage = Stage(channels, width, layers=config.depth // STAGES, act=config.activation)
        net.add_module(f"stage{i}", stage)
        channels = width
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(channels, task.outputs))
    return net
