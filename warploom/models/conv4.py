"""The four-block convolutional net of few-shot learning, plain and with warp layers.

A block is 3x3 convolution (padding 1) → 2x2 max-pooling → batch normalisation → activation, in the order of Leap and
WarpGrad; after the blocks a linear head. With `downsample` stride the convolution itself halves the image, and the head
sees the mean over what is left of it (Finn et al. 2017, appendix A.1). `warp_conv4` puts warp layers after each block.
By default that is one plain 3x3 convolution without normalisation, activation or residual; it may be a FiLM-like
scaling or a gate. Or `warp_pattern` designates layers of the plain net as warp.

Source: Flennerhag et al. 2020, section 4, Figure 6 and appendix F. The last image side is usually one pixel, so the
head sees as many features as there are filters (more for larger images).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from warploom.configs import TaskConfig
from warploom.models.base import VECTORISED, BatchNorm, Model, Scaling, activation, make_model
from warploom.models.configs.conv4 import Conv4Config, WarpConv4Config

STEM_CHANNELS = 4


class Stem(nn.Conv2d):
    """A 3x3 convolution of images with few channels, as one matrix product over their 3x3 patches.

    Equal to `nn.Conv2d` up to round-off. The product leaves channels in the last place in memory, where the
    convolutions and poolings that follow run a quarter faster on a CPU, and T tasks at once need no grouped
    convolution.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] → [B, filters, H / stride, W / stride], rounded up."""
        stride = self.stride[0]
        patches_BPK = F.unfold(x_BCHW, 3, padding=1, stride=stride).transpose(1, 2)
        out_BPF = F.linear(patches_BPK, self.weight.flatten(1), self.bias)
        batch, _, *sides = x_BCHW.shape
        height, width = (-(-side // stride) for side in sides)
        out_BFHW = out_BPF.view(batch, height, width, -1).permute(0, 3, 1, 2)
        return out_BFHW.contiguous() if VECTORISED.get() else out_BFHW


class ConvWarp(nn.Module):
    """A warp layer: (normalise →) its kind (→ activate) (→ add the input → normalise), in the order of the authors.

    Kinds: `conv`, a convolution; `film`, a scale and a shift for each channel, γ ⊙ h + β; `gate`, h ⊙ σ(convolution of
    h). With the residual, the sum is normalised when `batch_norm` is on: "in and out", as appendix F's strongest rows.
    """

    def __init__(self, config: WarpConv4Config) -> None:
        super().__init__()
        width, kernel, act = config.filters, config.warp_kernel, config.warp_activation
        self.norm_in = BatchNorm(width) if config.warp_batch_norm else nn.Identity()
        self.body: nn.Module
        if config.warp_kind == "film":
            self.body = Scaling(width, config.warp_residual)
        else:
            conv = nn.Conv2d(width, width, kernel, padding=kernel // 2)
            if config.warp_init == "identity":
                _identity(conv, config.warp_residual)
            self.body = nn.Sequential(conv)
        self.gate = config.warp_kind == "gate"
        self.act = activation(act or "sigmoid") if act or self.gate else nn.Identity()
        self.residual = config.warp_residual
        both = config.warp_residual and config.warp_batch_norm
        self.norm_out = BatchNorm(width) if both else nn.Identity()

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Warp [B, C, H, W]; the shape stays."""
        warped: Tensor = self.act(self.body(self.norm_in(h_BCHW)))
        if self.gate:
            warped = h_BCHW * warped
        if self.residual:
            warped = self.norm_out(h_BCHW + warped)
        return warped


def _identity(conv: nn.Conv2d, residual: bool) -> None:
    """h ↦ h, or h ↦ 0 where the input is added behind it."""
    (nn.init.zeros_ if residual else nn.init.dirac_)(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def _warp(config: WarpConv4Config) -> nn.Module:
    layers = [ConvWarp(config) for _ in range(config.warp_layers)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def build_conv4(config: Conv4Config, task: TaskConfig) -> Model:
    """The plain net; all but the head has role adapt, unless a pattern says warp.

    Example:
        >>> from warploom.tasks.configs.glyphs import GlyphsConfig
        >>> build_conv4(Conv4Config(filters=8, warp_pattern=("norm0.*",)), GlyphsConfig()).names("warp")
        ['norm0.weight', 'norm0.bias']
    """
    return make_model(lambda: _net(config, task), config.role, task.kind, bn_mode=config.bn_mode)


def build_warp_conv4(config: WarpConv4Config, task: TaskConfig) -> Model:
    """The net with one `ConvWarp` or more after each block, and a warped head if the config says so."""
    return build_conv4(config, task)


def _net(config: Conv4Config, task: TaskConfig) -> nn.Module:
    net = nn.Sequential()
    channels, height, width = task.input_shape
    pooled = config.downsample == "pool"
    for i in range(config.layers):
        conv = Stem if channels <= STEM_CHANNELS else nn.Conv2d
        net.add_module(f"conv{i}", conv(channels, config.filters, 3, padding=1, stride=1 if pooled else 2))
        if pooled:
            net.add_module(f"pool{i}", nn.MaxPool2d(2))
        net.add_module(f"norm{i}", BatchNorm(config.filters))
        net.add_module(f"act{i}", activation(config.activation))
        if isinstance(config, WarpConv4Config):
            net.add_module(f"warp{i}", _warp(config))
        channels, height, width = config.filters, height // 2, width // 2
    if not pooled:
        net.add_module("mean", nn.AdaptiveAvgPool2d(1))
        height = width = 1
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", _head(config, channels * height * width, task.outputs))
    return net


def _head(config: Conv4Config, features: int, outputs: int) -> nn.Module:
    if isinstance(config, WarpConv4Config) and config.warp_final_head:
        return nn.Sequential(nn.Linear(features, config.filters), nn.Linear(config.filters, outputs))
    return nn.Linear(features, outputs)
