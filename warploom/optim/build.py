"""From a config to its inner optimiser."""

from __future__ import annotations

from typing import Any, cast

from warploom.configs import Config
from warploom.optim.base import InnerOptimiser
from warploom.optim.sgd import SGD

OPTIMISERS: dict[str, type[InnerOptimiser[Any]]] = {"sgd": SGD}


def build_optimiser(config: Config) -> InnerOptimiser[Any]:
    """The inner optimiser that `config` describes."""
    return OPTIMISERS[cast("Any", config).name](config)
