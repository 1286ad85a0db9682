"""VGG, ResNet and DenseNet: what they compute, how large they are, and that algorithms can learn through them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.func import grad
from torch.nn import functional as F

from tests.support.families import Noise, NoiseImagesConfig, doubled
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.configs.none import NoMetaConfig
from warploom.algorithms.maml import MAML
from warploom.algorithms.none import NoMeta
from warploom.build import build, build_model
from warploom.errors import InvalidInput, UnfitPair
from warploom.functional import batch_stats, forward, loss, over_tasks
from warploom.inner import unroll
from warploom.models.configs.conv4 import Conv4Config
from warploom.models.configs.densenet import DenseNetConfig
from warploom.models.configs.resnet import ResNetConfig
from warploom.models.configs.vgg import VGGConfig
from warploom.spec import JobSpec
from warploom.tasks.configs.base import ImageTaskConfig
from warploom.tasks.configs.sinusoid import SinusoidConfig
from warploom.types import TaskRef

SMALL = {
    "vgg": VGGConfig(filters=4, layers=3),
    "resnet-4": ResNetConfig(depth=4, widths=(3, 3, 4, 4)),
    "resnet-8": ResNetConfig(depth=8, widths=(3, 3, 4, 4)),
    "resnet-12": ResNetConfig(depth=12, widths=(3, 3, 4, 4)),
    "densenet-8": DenseNetConfig(growth=3),
}
each_net = pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)


class PicturesConfig(ImageTaskConfig):
    """Images of any size and number of channels; for the shapes alone."""

    name: str = "pictures"
    channels: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.channels, self.image_size, self.image_size)


OMNIGLOT = PicturesConfig(ways=20, image_size=28)
MINI = PicturesConfig(ways=5, image_size=84, channels=3)


def sizes(config, task):
    return {name: value.numel() for name, value in build_model(config, task).module.named_parameters()}


def learner(config, kind=NoMeta, **fields):
    task = NoiseImagesConfig(size=16, classes=3, support=9, query=6)
    settings = {NoMeta: NoMetaConfig, MAML: MAMLConfig}[kind](inner_lr=0.05, **fields)
    algorithm = kind(settings, build_model(config, task), Noise(task))
    return algorithm, doubled(algorithm.init(0)), algorithm.family.sample([TaskRef("train", i, 0) for i in range(2)])


# --- Sizes, by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "task", "count"),
    [
        # 3x3 convolution with bias and a norm: 9·in·out + out + 2·out. The image is 1 pixel at the head.
        (VGGConfig(), OMNIGLOT, (9 * 64 + 3 * 64) + 3 * (9 * 64 * 64 + 3 * 64) + (64 * 20 + 20)),
        # Three colours, 48 filters; 84 pixels halved four times are 5.
        (VGGConfig(filters=48), MINI, (9 * 3 * 48 + 3 * 48) + 3 * (9 * 48 * 48 + 3 * 48) + (48 * 5 * 5 * 5 + 5)),
        # A stage: 9·in·out + 2·out for each convolution, in·out + 2·out for the shortcut.
        (
            ResNetConfig(depth=4),
            OMNIGLOT,
            (9 * 64 + 128 + 64 + 128) + 3 * (9 * 4096 + 128 + 4096 + 128) + (64 * 20 + 20),
        ),
        (
            ResNetConfig(depth=8),
            MINI,
            (9 * 3 * 64 + 128 + 9 * 4096 + 128 + 3 * 64 + 128) + 3 * (2 * (9 * 4096 + 128) + 4096 + 128) + (64 * 5 + 5),
        ),
        (
            ResNetConfig(depth=12, widths=(64, 128, 256, 512)),
            MINI,
            sum(
                9 * c * w + 2 * w + 2 * (9 * w * w + 2 * w) + c * w + 2 * w
                for c, w in ((3, 64), (64, 128), (128, 256), (256, 512))
            )
            + (512 * 5 + 5),
        ),
        # Channels: 1 → 33 → 65 | 32 → 64 → 96 | 48 → 80 → 112 | 56 → 88 → 120; a layer has 2·in + 9·in·32.
        (
            DenseNetConfig(),
            OMNIGLOT,
            sum(9 * 32 * c for c in (1, 33, 32, 64, 48, 80, 56, 88))
            + sum(2 * c for c in (33, 32, 64, 48, 80, 56, 88))
            + (2 * 65 + 65 * 32)
            + (2 * 96 + 96 * 48)
            + (2 * 112 + 112 * 56)
            + 2 * 120
            + (120 * 20 + 20),
        ),
    ],
    ids=["vgg-omniglot", "vgg-mini", "resnet-4", "resnet-8", "resnet-12", "densenet-8"],
)
def test_the_sizes_are_those_of_the_definition(config, task, count):
    assert sum(sizes(config, task).values()) == count


def test_the_sizes_that_are_known():
    assert sum(sizes(VGGConfig(), OMNIGLOT).values()) == 113_236  # as the four-block net of WarpGrad
    assert sum(sizes(VGGConfig(filters=48), MINI).values()) == 70_085
    assert [sum(sizes(ResNetConfig(depth=depth), OMNIGLOT).values()) for depth in (4, 8, 12)] == [
        125_844,
        273_812,
        421_780,
    ]
    assert sum(sizes(DenseNetConfig(), OMNIGLOT).values()) == 132_744


@each_net
def test_the_config_lists_the_parameters_of_the_net(config):
    model = build_model(config, NoiseImagesConfig(size=16))
    assert config.parameters() == list(model.roles)
    assert model.names("head") == ["head.weight", "head.bias"]
    assert set(model.roles.values()) == {"adapt", "head"}
    assert model.convolutional


@each_net
def test_convolutions_are_as_many_as_the_depth_says(config):
    net = build_model(config, NoiseImagesConfig(size=16)).module
    big = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(big) == (config.layers if isinstance(config, VGGConfig) else config.depth)


# --- What they compute, written out a second time ---------------------------------------------------------------------


def norm(x, p, name):
    return F.batch_norm(x, None, None, p[f"{name}.weight"], p[f"{name}.bias"], training=True)


def vgg_by_hand(x, p, layers):
    for i in range(layers):
        x = F.conv2d(x, p[f"conv{i}.weight"], p[f"conv{i}.bias"], padding=1)
        x = F.max_pool2d(F.relu(norm(x, p, f"norm{i}")), 2)
    return F.linear(x.flatten(1), p["head.weight"], p["head.bias"])


def resnet_by_hand(x, p, layers):
    for i in range(4):
        around = norm(F.conv2d(x, p[f"stage{i}.shortcut.weight"]), p, f"stage{i}.shortcut_norm")
        for j in range(layers):
            x = norm(F.conv2d(x, p[f"stage{i}.conv{j}.weight"], padding=1), p, f"stage{i}.norm{j}")
            x = F.relu(x + around if j == layers - 1 else x)
        x = F.max_pool2d(x, 2)
    return F.linear(x.mean((2, 3)), p["head.weight"], p["head.bias"])


def densenet_by_hand(x, p):
    for i in range(4):
        first = x if i == 0 else F.relu(norm(x, p, f"block{i}.norm0"))
        x = torch.cat([x, F.conv2d(first, p[f"block{i}.conv0.weight"], padding=1)], 1)
        second = F.relu(norm(x, p, f"block{i}.norm1"))
        x = torch.cat([x, F.conv2d(second, p[f"block{i}.conv1.weight"], padding=1)], 1)
        if i < 3:
            x = F.relu(norm(x, p, f"transition{i}.norm"))
            x = F.avg_pool2d(F.conv2d(x, p[f"transition{i}.conv.weight"]), 2)
    return F.linear(F.relu(norm(x, p, "norm")).mean((2, 3)), p["head.weight"], p["head.bias"])


@pytest.mark.parametrize("channels", [1, 3, 6])
@each_net
def test_the_net_computes_its_definition(config, channels):
    model = build_model(config, PicturesConfig(ways=5, image_size=21, channels=channels))
    gen = torch.Generator().manual_seed(4)
    p = {
        name: value.double() + 0.2 * torch.randn(value.shape, generator=gen, dtype=torch.float64)
        for name, value in model.initial(0).items()
    }
    x = torch.randn(4, channels, 21, 21, generator=gen, dtype=torch.float64)
    if isinstance(config, VGGConfig):
        by_hand = vgg_by_hand(x, p, 3)
    else:
        by_hand = (
            densenet_by_hand(x, p) if isinstance(config, DenseNetConfig) else resnet_by_hand(x, p, config.depth // 4)
        )
    torch.testing.assert_close(forward(model, p, x), by_hand, rtol=1e-9, atol=1e-9)


def test_vgg_is_conv4_but_for_the_statistics():
    task = NoiseImagesConfig(size=16)
    vgg = build_model(VGGConfig(filters=4, layers=3), task)
    conv4 = build_model(Conv4Config(filters=4, layers=3), task)
    params = {name: value.double() for name, value in vgg.initial(1).items()}
    assert list(params) == list(conv4.roles)
    x = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    stats = batch_stats(vgg, params, x)
    torch.testing.assert_close(forward(conv4, params, x, stats), forward(vgg, params, x), rtol=1e-9, atol=1e-10)
    assert float((forward(conv4, params, x) - forward(vgg, params, x)).abs().max()) > 1e-2


@pytest.mark.parametrize("depth", [4, 8, 12])
def test_a_residual_stage_starts_with_unit_variance(depth):
    model = build_model(ResNetConfig(depth=depth), PicturesConfig(image_size=32))
    found = {}
    stage = model.module.get_submodule("stage2")
    stage.act.register_forward_pre_hook(lambda _, args: found.__setitem__("sum", args[0]))
    forward(model, model.initial(0), torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert 0.7 < float(found["sum"].var()) < 1.3


@pytest.mark.parametrize("task", [OMNIGLOT, MINI], ids=["omniglot", "mini"])
@pytest.mark.parametrize("config", [VGGConfig(), ResNetConfig(), DenseNetConfig()], ids=["vgg", "resnet", "densenet"])
def test_the_usual_images_go_in_and_logits_come_out(config, task):
    model = build_model(config, task)
    logits = forward(model, model.initial(0), torch.rand(2, *task.input_shape))
    assert logits.shape == (2, task.ways)
    assert bool(torch.isfinite(logits).all())


# --- Learning through them --------------------------------------------------------------------------------------------


@each_net
def test_gradients_reach_every_parameter(config):
    algorithm, meta, tasks = learner(config)
    found = grad(lambda p: loss(algorithm.model, p, tasks.support_x[0], tasks.support_y[0]))(meta.params)
    for name, value in found.items():
        # A bias before a normalisation is taken away by it: its gradient is zero by nature.
        reached = float(value.abs().max()) > 1e-6
        assert reached or (isinstance(config, VGGConfig) and name.startswith("conv") and name.endswith("bias")), name


@each_net
def test_vectorised_tasks_equal_a_loop(config):
    algorithm, meta, tasks = learner(config)

    def step(x_S, y_S, x_Q):
        def objective(p):
            return loss(algorithm.model, p, x_S, y_S)

        moved = {name: meta.params[name] - 0.1 * g for name, g in grad(objective)(meta.params).items()}
        return moved, forward(algorithm.model, moved, x_Q, batch_stats(algorithm.model, moved, x_S))

    args = (tasks.support_x, tasks.support_y, tasks.query_x)
    (one, logits), (other, again) = (over_tasks(step, *args, vectorise=how) for how in (True, False))
    torch.testing.assert_close(logits, again, rtol=1e-8, atol=1e-9)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-8, atol=1e-9)


@each_net
def test_the_meta_gradient_of_maml_is_that_of_finite_differences(config):
    smooth = config.model_copy(update={"activation": "tanh"})  # differences across a kink say nothing
    algorithm, meta, tasks = learner(smooth, MAML, inner_steps=2)
    gradient_T, metrics = algorithm.task_gradients(meta, tasks, seeds=[0, 1])
    assert bool(torch.isfinite(metrics["query_loss"]).all())
    gen = torch.Generator().manual_seed(9)
    along = {n: torch.randn(v.shape, generator=gen, dtype=torch.float64) for n, v in meta.params.items()}

    def value(eps):
        learned = {name: v + eps * along[name] for name, v in meta.params.items()}
        x, y = tasks.support_x[0], tasks.support_y[0]
        twice = torch.stack([x, x]), torch.stack([y, y])
        lr = torch.tensor(0.05, dtype=torch.float64)
        theta = list(unroll(algorithm, learned, *twice, lr=lr, stats={}))[-1][0]
        return float(algorithm.outer_loss(learned, theta, x, tasks.query_x[0], tasks.query_y[0], {}))

    eps = 1e-6
    by_differences = (value(eps) - value(-eps)) / (2 * eps)
    ours = sum(float((gradient_T[name][0] * along[name]).sum()) for name in gradient_T)
    assert ours == pytest.approx(by_differences, rel=1e-6)


@each_net
def test_adaptation_lowers_the_loss_and_queries_do_not_see_each_other(config):
    algorithm, meta, tasks = learner(config, inner_steps=8)
    adapted = algorithm.adapt(meta, tasks, seeds=[1, 2])
    assert bool((adapted.losses_TK[:, -1] < 0.8 * adapted.losses_TK[:, 0]).all())
    together = algorithm.predict(meta, adapted, tasks.query_x)
    apart = [algorithm.predict(meta, adapted, tasks.query_x[:, q : q + 1]) for q in range(6)]
    torch.testing.assert_close(together, torch.cat(apart, 1), rtol=1e-9, atol=1e-9)


# --- What fits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "task", "words"),
    [
        (VGGConfig(), NoiseImagesConfig(size=15), "halves the image 4 times and so needs 16 pixels a side, not 15"),
        (VGGConfig(layers=5), OMNIGLOT, "needs 32 pixels a side, not 28; use larger images, or conv4"),
        (ResNetConfig(), NoiseImagesConfig(size=15), "needs 16 pixels a side"),
        (DenseNetConfig(), NoiseImagesConfig(size=7), "needs 8 pixels a side"),
        (ResNetConfig(), SinusoidConfig(), r"not inputs of shape \(1,\); use mlp"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(config, task, words):
    with pytest.raises(UnfitPair, match=words):
        build_model(config, task)


@pytest.mark.parametrize(("config", "side"), [(VGGConfig(), 16), (ResNetConfig(depth=8), 16), (DenseNetConfig(), 8)])
def test_the_smallest_image_that_fits_does(config, side):
    model = build_model(config, NoiseImagesConfig(size=side))
    assert forward(model, model.initial(0), torch.rand(2, 1, side, side)).shape == (2, 3)


@pytest.mark.parametrize(
    ("model", "warp"),
    [
        ({"name": "vgg", "layers": 2, "filters": 4, "warp_pattern": ["conv1.*"]}, {"conv1.weight", "conv1.bias"}),
        (
            {"name": "resnet", "widths": [3, 3, 3, 3], "warp_pattern": ["stage[12].shortcut.*"]},
            {"stage1.shortcut.weight", "stage2.shortcut.weight"},
        ),
        ({"name": "densenet", "growth": 3, "warp_pattern": ["transition0.conv*"]}, {"transition0.conv.weight"}),
    ],
)
def test_layers_may_be_designated_as_warp(model, warp):
    document = {
        "algorithm": "warpgrad",
        "task": {"name": "glyphs", "ways": 2, "shots": 1, "queries": 1},
        "model": model,
    }
    algorithm = build(JobSpec.parse(document))
    assert set(algorithm.model.names("warp")) == warp
    assert algorithm.adaptable == set(algorithm.model.roles) - warp
    for pattern, words in (([], "has none; models that fit"), (["conv9.*"], r"'conv9\.\*' matches no parameter")):
        plain = {**document, "algorithm": "warpgrad" if not pattern else "maml"}
        with pytest.raises(InvalidInput, match=words):
            JobSpec.parse({**plain, "model": {**model, "warp_pattern": pattern}})


def test_the_entries_load_without_torch():
    code = (
        "import sys; from warploom.registry import config_class\n"
        "for name in ('vgg', 'resnet', 'densenet'): assert config_class('model', name)(name=name).parameters()\n"
        "for name in ('image-folder', 'cifar10'): assert config_class('task', name)(name=name).input_shape\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
