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
    "warpgrad": Entry("warploom.algorithms.configs:WarpGradConfig", "warploom.algorithms.warpgrad:WarpGrad"),
    "none": Entry("warploom.algorithms.configs:NoMetaConfig", "warploom.algorithms.none:NoMeta"),
}

TASKS: dict[str, Entry] = {
    "omniglot": Entry("warploom.tasks.configs:OmniglotConfig", "warploom.tasks.omniglot:Omniglot"),
    "glyphs": Entry("warploom.tasks.configs:GlyphsConfig", "warploom.tasks.glyphs:Glyphs"),
    "sinusoid": Entry("warploom.tasks.configs:SinusoidConfig", "warploom.tasks.sinusoid:Sinusoid"),
}

MODELS: dict[str, Entry] = {
    "conv4": Entry("warploom.models.configs:Conv4Config", "warploom.models.conv4:build_conv4"),
    "warp_conv4": Entry("warploom.models.configs:WarpConv4Config", "warploom.models.conv4:build_warp_conv4"),
    "mlp": Entry("warploom.models.configs:MLPConfig", "warploom.models.mlp:build_mlp"),
    "warp_mlp": Entry("warploom.models.configs:WarpMLPConfig", "warploom.models.mlp:build_warp_mlp"),
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
