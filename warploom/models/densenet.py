"""A densely connected net of 8 convolutions for few-shot learning.

Four blocks of two layers. With h the input of a block, k the growth, N batch normalisation, a the activation and c a
3x3 convolution (padding 1, no bias) with k outputs, layer j of a block appends to what the block has so far:

    u_0 = h,  u_j = [u_{j−1}, c_j(a(N_j(u_{j−1})))].

The very first layer sees the image as it is (no N, no a): an activation of the image itself would lose half of it.
Between blocks a transition takes N → a → 1x1 convolution (no bias) to ⌊compression · channels⌋ → 2x2 mean-pooling.
After the last block: N → a → the mean over the image → a linear head.

Source: Grefenstette et al., arXiv:1910.01727, section 5.2 and its table of "densenet-8"; layers, transitions and
compression of Huang et al., CVPR 2017 (DenseNet-C).
Departures: the first paper names the net by depth and says no more that we could read. Huang et al. count the first
convolution, the transitions and the head into the depth, and no net of equal blocks has then depth 8; ours counts
3x3 convolutions, as our `resnet` does. There is no convolution before the first block, and no bottleneck.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from warploom.configs import TaskConfig
from warploom.models.base import BatchNorm, Model, activation, make_model
from warploom.models.configs.densenet import BLOCKS, DenseNetConfig
from warploom.models.layers import conv3x3


class DenseBlock(nn.Module):
    """Layers that each append k channels to all that came before."""

    def __init__(self, channels: int, growth: int, *, layers: int, bare: bool, act: str) -> None:
        super().__init__()
        self.layers, self.bare = layers, bare
        for j in range(layers):
            if j or not bare:
                self.add_module(f"norm{j}", BatchNorm(channels))
            self.add_module(f"conv{j}", conv3x3(channels, growth, bias=False))
            channels += growth
        self.act = activation(act)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C + layers · k, H, W]."""
        u = h_BCHW
        for j in range(self.layers):
            ready = self.act(self.get_submodule(f"norm{j}")(u)) if j or not self.bare else u
            u = torch.cat([u, self.get_submodule(f"conv{j}")(ready)], dim=1)
        return u


def build_densenet(config: DenseNetConfig, task: TaskConfig) -> Model:
    """All but the head has role adapt, unless a pattern says warp.

    Example:
        >>> from warploom.tasks.configs.glyphs import GlyphsConfig
        >>> build_densenet(DenseNetConfig(), GlyphsConfig()).names("head")
        ['head.weight', 'head.bias']
    """
    return make_model(lambda: _net(config, task), config.role, task.kind, bn_mode=config.bn_mode)


def _net(config: DenseNetConfig, task: TaskConfig) -> nn.Module:
    net = nn.Sequential()
    channels, layers = task.input_shape[0], config.depth // BLOCKS
    for i in range(BLOCKS):
        block = DenseBlock(channels, config.growth, layers=layers, bare=i == 0, act=config.activation)
        net.add_module(f"block{i}", block)
        channels += layers * config.growth
        if i < BLOCKS - 1:
            kept = config.kept(channels)
            net.add_module(f"transition{i}", _transition(channels, kept, config.activation))
            channels = kept
    net.add_module("norm", BatchNorm(channels))
    net.add_module("act", activation(config.activation))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(channels, task.outputs))
    return net


def _transition(channels: int, kept: int, act: str) -> nn.Module:
    transition = nn.Sequential()
    transition.add_module("norm", BatchNorm(channels))
    transition.add_module("act", activation(act))
    transition.add_module("conv", nn.Conv2d(channels, kept, 1, bias=False))
    transition.add_module("pool", nn.AvgPool2d(2))
    return transition
