"""The literal tables of algorithms, task families and models.

A table names modules by string: reading it imports nothing, so a listing loads no torch, and an entry works in a
process that imported nothing before. To add one: its file, its config class, and one line here. Lines of other
distributions are added while a process starts (`warploom.plugins`), never in place of one of these.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, NamedTuple, cast

from warploom.configs import AlgorithmConfig, ModelConfig, NamedConfig, TaskConfig
from warploom.errors import InvalidInput, SetupError

Shelf = Literal["algorithm", "task", "model"]


class Entry(NamedTuple):
    """Where an entry lives: its config (light) and its implementation (may load torch), as `module:name`."""

    config: str
    implementation: str


ALGORITHMS: dict[str, Entry] = {
    "warpgrad": Entry("warploom.algorithms.configs.warpgrad:WarpGradConfig", "warploom.algorithms.warpgrad:WarpGrad"),
    "warpgrad-online": Entry(
        "warploom.algorithms.configs.warpgrad_online:WarpGradOnlineConfig",
        "warploom.algorithms.warpgrad_online:WarpGradOnline",
    ),
    "warpgrad-continual": Entry(
        "warploom.algorithms.configs.warpgrad_continual:WarpGradContinualConfig",
        "warploom.algorithms.warpgrad_continual:WarpGradContinual",
    ),
    "maml": Entry("warploom.algorithms.configs.maml:MAMLConfig", "warploom.algorithms.maml:MAML"),
    "fomaml": Entry("warploom.algorithms.configs.fomaml:FOMAMLConfig", "warploom.algorithms.fomaml:FOMAML"),
    "anil": Entry("warploom.algorithms.configs.anil:ANILConfig", "warploom.algorithms.anil:ANIL"),
    "meta-sgd": Entry("warploom.algorithms.configs.meta_sgd:MetaSGDConfig", "warploom.algorithms.meta_sgd:MetaSGD"),
    "maml++": Entry("warploom.algorithms.configs.maml_plus:MAMLPlusConfig", "warploom.algorithms.maml_plus:MAMLPlus"),
    "imaml": Entry("warploom.algorithms.configs.imaml:IMAMLConfig", "warploom.algorithms.imaml:IMAML"),
    "a-maml": Entry("warploom.algorithms.configs.a_maml:AMAMLConfig", "warploom.algorithms.a_maml:AMAML"),
    "implicit-hpo": Entry(
        "warploom.algorithms.configs.implicit_hpo:ImplicitHPOConfig", "warploom.algorithms.implicit_hpo:ImplicitHPO"
    ),
    "leap": Entry("warploom.algorithms.configs.leap:LeapConfig", "warploom.algorithms.leap:Leap"),
    "reptile": Entry("warploom.algorithms.configs.reptile:ReptileConfig", "warploom.algorithms.reptile:Reptile"),
    "multi-head": Entry(
        "warploom.algorithms.configs.multi_head:MultiHeadConfig", "warploom.algorithms.multi_head:MultiHead"
    ),
    "learned-rates": Entry(
        "warploom.algorithms.configs.learned_rates:LearnedRatesConfig", "warploom.algorithms.learned_rates:LearnedRates"
    ),
    "learned-loss": Entry(
        "warploom.algorithms.configs.learned_loss:LearnedLossConfig", "warploom.algorithms.learned_loss:LearnedLoss"
    ),
    "learned-optimizer": Entry(
        "warploom.algorithms.configs.learned_optimizer:LearnedOptimizerConfig",
        "warploom.algorithms.learned_optimizer:LearnedOptimizer",
    ),
    "none": Entry("warploom.algorithms.configs.none:NoMetaConfig", "warploom.algorithms.none:NoMeta"),
}

TASKS: dict[str, Entry] = {
    "omniglot": Entry("warploom.tasks.configs.omniglot:OmniglotConfig", "warploom.tasks.omniglot:Omniglot"),
    "glyphs": Entry("warploom.tasks.configs.glyphs:GlyphsConfig", "warploom.tasks.glyphs:Glyphs"),
    "sinusoid": Entry("warploom.tasks.configs.sinusoid:SinusoidConfig", "warploom.tasks.sinusoid:Sinusoid"),
    "image-folder": Entry(
        "warploom.tasks.configs.image_folder:ImageFolderConfig", "warploom.tasks.image_folder:ImageFolder"
    ),
    "cifar10": Entry("warploom.tasks.configs.cifar10:Cifar10Config", "warploom.tasks.cifar10:Cifar10"),
    "maze": Entry("warploom.tasks.configs.maze:MazeConfig", "warploom.tasks.maze:Maze"),
    "surfaces": Entry("warploom.tasks.configs.surfaces:SurfacesConfig", "warploom.tasks.surfaces:Surfaces"),
    "cosmixture": Entry("warploom.tasks.configs.functions:CosMixtureConfig", "warploom.tasks.functions:CosMixture"),
    "alpine": Entry("warploom.tasks.configs.functions:AlpineConfig", "warploom.tasks.functions:Alpine"),
    "continual-sine": Entry(
        "warploom.tasks.configs.continual_sine:ContinualSineConfig", "warploom.tasks.continual_sine:ContinualSine"
    ),
    "arrays": Entry("warploom.tasks.configs.arrays:ArraysConfig", "warploom.tasks.arrays:Arrays"),
    "ratings": Entry("warploom.tasks.configs.ratings:RatingsConfig", "warploom.tasks.ratings:Ratings"),
}

MODELS: dict[str, Entry] = {
    "conv4": Entry("warploom.models.configs.conv4:Conv4Config", "warploom.models.conv4:build_conv4"),
    "warp_conv4": Entry("warploom.models.configs.conv4:WarpConv4Config", "warploom.models.conv4:build_warp_conv4"),
    "mlp": Entry("warploom.models.configs.mlp:MLPConfig", "warploom.models.mlp:build_mlp"),
    "warp_mlp": Entry("warploom.models.configs.mlp:WarpMLPConfig", "warploom.models.mlp:build_warp_mlp"),
    "rnn": Entry("warploom.models.configs.agents:RNNConfig", "warploom.models.agents:build_rnn"),
    "plastic_rnn": Entry("warploom.models.configs.agents:PlasticRNNConfig", "warploom.models.agents:build_plastic_rnn"),
    "warp_rnn": Entry("warploom.models.configs.agents:WarpRNNConfig", "warploom.models.agents:build_warp_rnn"),
    "point": Entry("warploom.models.configs.point:PointConfig", "warploom.models.point:build_point"),
    "warp_point": Entry("warploom.models.configs.point:WarpPointConfig", "warploom.models.point:build_warp_point"),
    "vgg": Entry("warploom.models.configs.vgg:VGGConfig", "warploom.models.vgg:build_vgg"),
    "resnet": Entry("warploom.models.configs.resnet:ResNetConfig", "warploom.models.resnet:build_resnet"),
    "densenet": Entry("warploom.models.configs.densenet:DenseNetConfig", "warploom.models.densenet:build_densenet"),
}

TABLES: dict[Shelf, dict[str, Entry]] = {"algorithm": ALGORITHMS, "task": TASKS, "model": MODELS}
PLUGINS: dict[tuple[Shelf, str], str] = {}
"""The lines that are not ours, and the distribution of each."""


def load(path: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def entry(shelf: Shelf, name: str) -> Entry:
    """The table line of `name`.

    Raises:
        InvalidInput: no such line; the message lists what there is.
    """
    table = TABLES[shelf]
    if name not in table:
        known = ", ".join(sorted(table))
        raise InvalidInput(
            f"unknown {shelf} {name!r}; there are: {known}",
            field=f"/{shelf}/name",
            rule=f"one of: {known}",
            value=name,
        )
    return table[name]


def config_class(shelf: Shelf, name: str) -> type[NamedConfig]:
    """The config class of `name`, without loading its implementation.

    Example:
        >>> config_class("task", "sinusoid").__name__
        'SinusoidConfig'
    """
    return cast("type[NamedConfig]", load(entry(shelf, name).config))


def implementation(shelf: Shelf, config: AlgorithmConfig | TaskConfig | ModelConfig) -> Any:
    """The class or function that implements `config` (loads torch).

    Raises:
        SetupError: a plugin's implementation cannot be loaded; names the plugin.
    """
    path = entry(shelf, config.name).implementation
    plugin = PLUGINS.get((shelf, config.name))
    try:
        return load(path)
    except Exception as error:
        if plugin is None:
            raise
        raise SetupError(
            f"plugin {plugin!r}: {shelf} {config.name!r}: {path} cannot be loaded: {error!r}",
            field="plugins",
            rule="an implementation that loads",
            value=path,
        ) from error
