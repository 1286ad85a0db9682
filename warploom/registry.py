"""The literal tables of algorithms, task families and models.

A table names modules by string: reading it imports nothing, so a listing loads no torch, and an entry works in a
process that imported nothing before. To add one: its file, its config class, and one line here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, NamedTuple, cast

from warploom.configs import AlgorithmConfig, ModelConfig, NamedConfig, TaskConfig
from warploom.errors import InvalidInput

Shelf = Literal["algorithm", "task", "model"]


class Entry(NamedTuple):
    """Where an entry lives: its config (light) and its implementation (may load torch), as `module:name`."""

    config: str
    implementation: str


ALGORITHMS: dict[str, Entry] = {
    "warpgrad": Entry("warploom.algorithms.configs.warpgrad:WarpGradConfig", "warploom.algorithms.warpgrad:WarpGrad"),
    "maml": Entry("warploom.algorithms.configs.maml:MAMLConfig", "warploom.algorithms.maml:MAML"),
    "none": Entry("warploom.algorithms.configs.none:NoMetaConfig", "warploom.algorithms.none:NoMeta"),
}

TASKS: dict[str, Entry] = {
    "omniglot": Entry("warploom.tasks.configs.omniglot:OmniglotConfig", "warploom.tasks.omniglot:Omniglot"),
    "glyphs": Entry("warploom.tasks.configs.glyphs:GlyphsConfig", "warploom.tasks.glyphs:Glyphs"),
    "sinusoid": Entry("warploom.tasks.configs.sinusoid:SinusoidConfig", "warploom.tasks.sinusoid:Sinusoid"),
}

MODELS: dict[str, Entry] = {
    "conv4": Entry("warploom.models.configs.conv4:Conv4Config", "warploom.models.conv4:build_conv4"),
    "warp_conv4": Entry("warploom.models.configs.conv4:WarpConv4Config", "warploom.models.conv4:build_warp_conv4"),
    "mlp": Entry("warploom.models.configs.mlp:MLPConfig", "warploom.models.mlp:build_mlp"),
    "warp_mlp": Entry("warploom.models.configs.mlp:WarpMLPConfig", "warploom.models.mlp:build_warp_mlp"),
}

TABLES: dict[Shelf, dict[str, Entry]] = {"algorithm": ALGORITHMS, "task": TASKS, "model": MODELS}


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
    """The class or function that implements `config` (loads torch)."""
    return load(entry(shelf, config.name).implementation)
