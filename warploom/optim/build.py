"""From a config to its inner optimiser."""

from __future__ import annotations

from typing import Any

from warploom.optim.adadelta import Adadelta
from warploom.optim.adagrad import Adagrad
from warploom.optim.adam import Adam
from warploom.optim.adamax import Adamax
from warploom.optim.asgd import ASGD
from warploom.optim.base import InnerOptimiser
from warploom.optim.configs import InnerOptimiserConfig
from warploom.optim.rmsprop import RMSprop
from warploom.optim.rprop import Rprop
from warploom.optim.sgd import SGD

OPTIMISERS: dict[str, type[InnerOptimiser[Any]]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": Adam,
    "amsgrad": Adam,
    "adamax": Adamax,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adadelta": Adadelta,
    "asgd": ASGD,
    "rprop": Rprop,
}


def build_optimiser(config: InnerOptimiserConfig) -> InnerOptimiser[Any]:
    """The inner optimiser that `config` describes.

    Example:
        >>> from warploom.optim.configs import AdamConfig
        >>> build_optimiser(AdamConfig(beta1=0.8)).settings()["beta1"]
        0.8
    """
    return OPTIMISERS[config.name](config)
