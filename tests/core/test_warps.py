"""Warp layers of every kind by hand, and layers of standard nets designated as warp by their names."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from warploom.build import build
from warploom.errors import InvalidInput, UnfitPair
from warploom.functional import forward
from warploom.models.configs.conv4 import Conv4Config, WarpConv4Config
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig
from warploom.models.conv4 import build_conv4, build_warp_conv4
from warploom.models.mlp import build_mlp, build_warp_mlp
from warploom.spec import JobSpec
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.configs.sinusoid import SinusoidConfig

IMAGES = GlyphsConfig(image_size=8)


def conv_warp(**options):
    config = WarpConv4Config(layers=1, filters=3, **options)
    warp = build_warp_conv4(config, IMAGES).module.warp0
    noise = torch.Generator().manual_seed(0)
    for value in warp.parameters():
        value.data += 0.1 * torch.randn(value.shape, generator=noise)
    return warp, torch.randn(2, 3, 4, 4, generator=noise)


def vector_warp(**options):
    warp = build_warp_mlp(WarpMLPConfig(hidden=(3,), **options), SinusoidConfig()).module.warp0
    noise = torch.Generator().manual_seed(0)
    for value in warp.parameters():
        value.data += 0.1 * torch.randn(value.shape, generator=noise)
    return warp, torch.randn(5, 3, generator=noise)


def test_film_scales_and_shifts_each_channel():
    warp, h = conv_warp(warp_kind="film")
    by_hand = torch.stack([h[:, c] * warp.body.weight[c] + warp.body.bias[c] for c in range(3)], 1)
    torch.testing.assert_close(warp(h), by_hand)
    assert sum(value.numel() for value in warp.parameters()) == 6
    warp, h = vector_warp(warp_kind="film", warp_residual=True, warp_activation="tanh")
    torch.testing.assert_close(warp(h), h + torch.tanh(h * warp.scaling.weight + warp.scaling.bias))


@pytest.mark.parametrize("residual", [True, False])
def test_film_starts_as_the_identity(residual):
    options = {"warp_kind": "film", "warp_residual": residual}
    image = build_warp_conv4(WarpConv4Config(layers=1, filters=3, **options), IMAGES).module.warp0
    vector = build_warp_mlp(WarpMLPConfig(hidden=(3,), **options), SinusoidConfig()).module.warp0
    for warp, h in ((image, torch.randn(2, 3, 4, 4)), (vector, torch.randn(2, 3))):
        torch.testing.assert_close(warp(h), h)


@pytest.mark.parametrize(
    "options", [{}, {"warp_kernel": 1, "warp_layers": 2}, {"warp_residual": True}, {"warp_activation": "relu"}]
)
def test_convolutions_can_start_as_the_identity(options):
    config = WarpConv4Config(layers=2, filters=3, warp_init="identity", **options)
    warped, plain = build_warp_conv4(config, IMAGES), build_conv4(Conv4Config(layers=2, filters=3), IMAGES)
    images, params = torch.randn(4, 1, 8, 8), warped.initial(0)
    shared = {name: params[name] for name in plain.roles}
    torch.testing.assert_close(forward(warped, params, images, {}), forward(plain, shared, images, {}))
    with pytest.raises(ValueError, match="gate"):
        WarpConv4Config(warp_init="identity", warp_kind="gate")


def test_a_gate_is_a_product_of_the_same_activations():
    warp, h = conv_warp(warp_kind="gate", warp_kernel=1)
    torch.testing.assert_close(warp(h), h * torch.sigmoid(F.conv2d(h, warp.body[0].weight, warp.body[0].bias)))
    warp, h = vector_warp(warp_kind="gate", warp_residual=True, warp_activation="tanh")
    torch.testing.assert_close(warp(h), h + h * torch.tanh(F.linear(h, warp.linear.weight, warp.linear.bias)))


def test_warp_layers_stand_one_behind_the_other():
    warp, h = conv_warp(warp_layers=2, warp_activation="tanh", warp_residual=True)
    for layer in warp:
        by_hand = h + torch.tanh(F.conv2d(h, layer.body[0].weight, layer.body[0].bias, padding=1))
        torch.testing.assert_close(layer(h), by_hand)
    torch.testing.assert_close(warp(h), warp[1](warp[0](h)))


def test_the_order_of_a_layer_with_everything():
    """Normalise, convolve, activate, add, normalise: as in the authors' code."""
    warp, h = conv_warp(warp_batch_norm=True, warp_activation="relu", warp_residual=True)
    once = F.batch_norm(h, None, None, warp.norm_in.weight, warp.norm_in.bias, training=True)
    summed = h + F.relu(F.conv2d(once, warp.body[0].weight, warp.body[0].bias, padding=1))
    by_hand = F.batch_norm(summed, None, None, warp.norm_out.weight, warp.norm_out.bias, training=True)
    torch.testing.assert_close(warp(h), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "maker", "task"),
    [
        (Conv4Config(layers=2, filters=3), build_conv4, IMAGES),
        (WarpConv4Config(layers=2, filters=3), build_warp_conv4, IMAGES),
        (WarpConv4Config(layers=2, filters=3, warp_final_head=True), build_warp_conv4, IMAGES),
        (MLPConfig(hidden=(4, 5)), build_mlp, SinusoidConfig()),
        (WarpMLPConfig(hidden=(4, 5), warp_kind="film"), build_warp_mlp, SinusoidConfig()),
    ],
)
def test_a_config_knows_the_parameters_and_roles_of_its_net(config, maker, task):
    model = maker(config, task)
    assert config.parameters() == model.names("adapt", "head")
    assert config.provided() == set(model.roles.values())
    pattern = (config.parameters()[0], "*.bias")
    designated = config.model_copy(update={"warp_pattern": pattern})
    again = maker(designated, task)
    assert designated.provided() == set(again.roles.values())
    for name in config.parameters():
        chosen = name == pattern[0] or name.endswith(".bias")
        assert again.roles[name] == ("warp" if chosen else model.roles[name])


def test_a_job_with_designated_layers():
    document = {"algorithm": {"name": "warpgrad", "inner_steps": 2}, "task": "sinusoid"}
    spec = JobSpec.parse({**document, "model": {"name": "mlp", "warp_pattern": ["layer1.*"]}})
    algorithm = build(JobSpec.parse(spec.to_json()))
    assert set(algorithm.outer().rates) >= {"layer1.weight", "layer1.bias"}
    assert "layer1.weight" not in algorithm.adaptable


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("mlp", "needs warp parameters and model 'mlp' has none; models that fit: .*mlp with a warp_pattern, warp_mlp"),
        (
            {"name": "mlp", "warp_pattern": ["layer9.*"]},
            "warp_pattern 'layer9.\\*' matches no parameter; there are: layer0.weight,",
        ),
        ({"name": "mlp", "warp_pattern": ["*"]}, "needs adapt parameters and model 'mlp' has none"),
        ({"name": "mlp", "warp_pattern": ["layer9.*", "head.*"]}, "warp_pattern 'layer9"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(model, sentence):
    with pytest.raises((UnfitPair, InvalidInput), match=sentence):
        JobSpec.parse({"algorithm": "warpgrad", "task": "sinusoid", "model": model})
