"""The net of MAML++: four blocks of 3x3 convolution → batch normalisation → activation → 2x2 max-pooling.

Each convolution has `filters` outputs, padding 1 and a bias; what is left of the image is flattened into a linear
head. The difference from `conv4` is the order: there the image is pooled first and then normalised, here it is
normalised at full size, by statistics over four times as many pixels. With an increasing activation and γ > 0 the two
nets agree if they are given the same statistics.

Source: Antoniou, Edwards, Storkey, ICLR 2019 (the net of Vinyals et al. 2016 with 48 filters for miniImageNet and 64
for Omniglot); row "base" of Grefenstette et al., arXiv:1910.01727, section 5.2.
Departures: one scale and shift per layer for all steps (MAML++ learns one per step); the authors' code has leaky
ReLUs (`activation` leaky_relu), and over its history also normalises before the convolution.
"""

from __future__ import annotations

from torch import nn

from warploom.configs import TaskConfig
from warploom.models.base import BatchNorm, Model, activation, make_model
from warploom.models.configs.vgg import VGGConfig
from warploom.models.layers import conv3x3


def build_vgg(config: VGGConfig, task: TaskConfig) -> Model:
    """All but the head has role adapt, unless a pattern says warp.

    Example:
        >>> from warploom.tasks.configs.glyphs import GlyphsConfig
        >>> model = build_vgg(VGGConfig(layers=1), GlyphsConfig())
        >>> [name for name, _ in model.module.named_children()]
        ['conv0', 'norm0', 'act0', 'pool0', 'flatten', 'head']
    """
    return make_model(lambda: _net(config, task), config.role, task.kind, bn_mode=config.bn_mode)


def _net(config: VGGConfig, task: TaskConfig) -> nn.Module:
    net = nn.Sequential()
    channels, height, width = task.input_shape
    for i in range(config.layers):
        net.add_module(f"conv{i}", conv3x3(channels, config.filters))
        net.add_module(f"norm{i}", BatchNorm(config.filters))
        net.add_module(f"act{i}", activation(config.activation))
        net.add_module(f"pool{i}", nn.MaxPool2d(2))
        channels, height, width = config.filters, height // 2, width // 2
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(channels * height * width, task.outputs))
    return net
