"""What an inner optimiser is: a start of state, and a step, both pure.

A state is a flat dict of tensors, so that it stacks over tasks, travels and is differentiated like parameters. Its
names are `slot/parameter` (`momentum/layer0.weight`), or a bare `slot` for what the parameters share (`step`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor

from warploom.configs import Config
from warploom.types import Tensors

ConfigT = TypeVar("ConfigT", bound=Config)
Setting = float | Tensor | Mapping[str, Tensor]
Settings = Mapping[str, Setting]


class InnerOptimiser(ABC, Generic[ConfigT]):
    """One rule of the inner step."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def settings(self) -> dict[str, Setting]:
        """The continuous hyper-parameters but `lr`, from the config, by name. Any may be replaced in `step`."""

    def init(self, theta: Tensors) -> Tensors:  # noqa: ARG002
        """The state before the first step."""
        return {}

    @abstractmethod
    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """New parameters and state.

        Args:
            theta: the parameters, by name.
            gradient: ∇L(θ), by the same names.
            state: as `init` or the last `step` gave it.
            settings: `lr` and all of `settings()`; each a number, a scalar tensor, or a tensor for each parameter
                (of its shape, or a scalar). Derivatives flow into all of them.
        """


def of(setting: Setting, name: str) -> float | Tensor:
    """What a setting is for the parameter `name`."""
    return setting[name] if isinstance(setting, Mapping) else setting
