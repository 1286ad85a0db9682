"""The nets: roles, shapes, sizes, and the pieces that are written differently from how they are defined."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from warploom.models.configs.conv4 import Conv4Config, WarpConv4Config
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig
from warploom.models.conv4 import Stem, build_conv4, build_warp_conv4
from warploom.models.mlp import build_mlp, build_warp_mlp
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.configs.omniglot import OmniglotConfig
from warploom.tasks.configs.sinusoid import SinusoidConfig


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_stem_is_a_convolution(channels, stride):
    stem = Stem(channels, 5, 3, padding=1, stride=stride).double()
    x = torch.randn(4, channels, 7, 10, dtype=torch.float64)
    torch.testing.assert_close(stem(x), F.conv2d(x, stem.weight, stem.bias, padding=1, stride=stride))


def test_strided_blocks_end_in_the_mean_over_the_image():
    """28 → 14 → 7 → 4 → 2 pixels a side, as in MAML's Omniglot net."""
    model = build_conv4(Conv4Config(filters=6, downsample="stride"), OmniglotConfig(ways=5))
    net, h = model.module, torch.randn(3, 1, 28, 28)
    x = h
    for i, side in enumerate((14, 7, 4, 2)):
        conv = net.get_submodule(f"conv{i}")
        h = F.conv2d(h, conv.weight, conv.bias, stride=2, padding=1)
        h = F.relu(F.batch_norm(h, None, None, training=True))
        assert h.shape == (3, 6, side, side)
    torch.testing.assert_close(net(x), net.get_submodule("head")(h.mean((2, 3))), rtol=1e-4, atol=1e-5)


def test_strides_take_images_that_pooling_cannot():
    assert Conv4Config().why_unfit((1, 8, 8), 5)
    assert Conv4Config(downsample="stride").why_unfit((1, 8, 8), 5) is None
    build_conv4(Conv4Config(downsample="stride"), GlyphsConfig(image_size=8)).module(torch.zeros(2, 1, 8, 8))


def test_the_sizes_of_the_paper():
    """Task net 113,236 parameters and warps 147,712, for 64 filters and 20 classes."""
    model = build_warp_conv4(WarpConv4Config(), OmniglotConfig())
    sizes = {name: value.numel() for name, value in model.module.named_parameters()}
    assert sum(sizes[name] for name in model.names("adapt", "head")) == 113_236
    assert sum(sizes[name] for name in model.names("warp")) == 147_712
    plain = build_conv4(Conv4Config(), OmniglotConfig())
    assert sum(value.numel() for value in plain.module.parameters()) == 113_236
    assert not plain.names("warp")


def test_the_block_is_convolution_pool_norm_activation():
    model = build_conv4(Conv4Config(layers=1, filters=6), GlyphsConfig(image_size=8))
    x = torch.randn(5, 1, 8, 8)
    net = model.module
    weight, bias = net.conv0.weight, net.conv0.bias
    by_hand = F.max_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    by_hand = F.relu(nn.BatchNorm2d(6)(by_hand))
    torch.testing.assert_close(net(x), net.head(by_hand.flatten(1)), rtol=1e-4, atol=1e-5)


def test_a_plain_3x3_warp_is_a_bare_convolution():
    model = build_warp_conv4(WarpConv4Config(layers=1, filters=3), GlyphsConfig(image_size=8))
    h = torch.randn(2, 3, 4, 4)
    warp = model.module.warp0
    torch.testing.assert_close(warp(h), F.conv2d(h, warp.body[0].weight, warp.body[0].bias, padding=1))


@pytest.mark.parametrize(
    ("options", "norms"),
    [
        ({}, 0),
        ({"warp_batch_norm": True}, 1),
        ({"warp_batch_norm": True, "warp_residual": True}, 2),
        ({"warp_kernel": 1}, 0),
        ({"warp_layers": 3, "warp_activation": "relu"}, 0),
    ],
)
def test_warp_options_keep_the_shape_and_are_warp_parameters(options, norms):
    model = build_warp_conv4(WarpConv4Config(layers=2, filters=4, **options), GlyphsConfig(image_size=8))
    assert model.module(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert all(name.startswith("warp") for name in model.names("warp"))
    assert sum(name.startswith("warp0") for name in model.norms()) == norms


def test_the_warped_final_head_puts_the_classes_into_the_warp():
    model = build_warp_conv4(WarpConv4Config(layers=1, filters=4, warp_final_head=True), GlyphsConfig(image_size=8))
    assert [name for name in model.names("warp") if name.startswith("head")] == ["head.1.weight", "head.1.bias"]
    assert model.names("head") == ["head.0.weight", "head.0.bias"]


def test_a_residual_linear_warp_starts_as_the_identity():
    warped = build_warp_mlp(WarpMLPConfig(hidden=(7, 5)), SinusoidConfig())
    plain = build_mlp(MLPConfig(hidden=(7, 5)), SinusoidConfig())
    state = {name: value for name, value in warped.module.state_dict().items() if not name.startswith("warp")}
    plain.module.load_state_dict(state)
    x = torch.randn(6, 1)
    torch.testing.assert_close(warped.module(x), plain.module(x))
    assert len(warped.names("warp")) == 4


def test_the_net_of_the_sine_experiment():
    model = build_mlp(MLPConfig(), SinusoidConfig())
    assert sum(value.numel() for value in model.module.parameters()) == 1761


def test_models_that_are_made_at_the_same_time_do_not_disturb_each_other():
    task, config = SinusoidConfig(), MLPConfig(hidden=(64, 64))
    model = build_mlp(config, task)
    seeds = range(40)
    alone = [model.initial(seed) for seed in seeds]

    def beside(seed):
        build_mlp(config, task)
        return model.initial(seed)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(beside, seeds))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
