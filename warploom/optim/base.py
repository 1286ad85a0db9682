"""What an inner optimiser is: a start of state, and a step, both pure.

A state is a flat dict of tensors, so that it stacks over tasks, travels and is differentiated like parameters. Its
names are `slot/parameter` (`momentum/layer0.weight`), or a bare `slot` for what the parameters share (`step`, the
number of steps taken).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from warploom.errors import InvalidInput
from warploom.optim.configs import InnerOptimiserConfig
from warploom.types import Tensors

ConfigT = TypeVar("ConfigT", bound=InnerOptimiserConfig)
Setting = float | Tensor | Mapping[str, Tensor]
Settings = Mapping[str, Setting]


class InnerOptimiser(ABC, Generic[ConfigT]):
    """One rule of the inner step."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @property
    def differentiable_in_gradient(self) -> bool:
        """Whether a step tells how it depends on the gradient (Gimli's requirement II)."""
        return self.config.differentiable_in_gradient

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


def zeros(theta: Tensors, *slots: str) -> Tensors:
    """A state of no steps, with zeros in each slot of each parameter."""
    start: Tensors = {"step": next(iter(theta.values())).new_zeros(())}
    for slot in slots:
        start |= {f"{slot}/{name}": torch.zeros_like(value) for name, value in theta.items()}
    return start


def off(setting: Setting) -> bool:
    """Whether a setting is the number zero, so that what it scales may be left out. A tensor never is."""
    return not isinstance(setting, Tensor | Mapping) and setting == 0


def decayed(gradient: Tensor, value: Tensor, decay: float | Tensor) -> Tensor:
    """g + λ θ: the gradient of the loss with λ/2 ‖θ‖² added."""
    return gradient if off(decay) else gradient + decay * value


def root(value: Tensor) -> Tensor:
    """√x, with derivative 0 at x = 0 and value 0 below.

    The roots of the rules here are of averages of squares: at 0 the true derivative with respect to the gradient is
    that of |g|, whose middle value is 0, but through √ it would come out as ∞ · 0. Below 0 is round-off.

    Example:
        >>> torch.func.grad(lambda g: root(g * g))(torch.tensor(0.0)).item()
        0.0
    """
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def grown(beta: float | Tensor, step: Tensor) -> Tensor:
    """1 − β^t, the weight that a moving average from zero has gathered after t steps.

    By expm1, because in single precision 1 − 0.999^t loses four digits.
    """
    if not isinstance(beta, Tensor):
        return -torch.expm1(step * math.log(beta)) if beta > 0 else torch.ones_like(step)
    positive = beta > 0
    return torch.where(positive, -torch.expm1(step * torch.where(positive, beta, 1.0).log()), 1 - beta**step)


def lifted(setting: float | Tensor, like: Tensor) -> Tensor:
    """A number as a tensor of the type of `like`."""
    if isinstance(setting, Tensor):
        return setting
    return torch.tensor(setting, dtype=like.dtype, device=like.device)


def refuse_lost(setting: Setting, name: str, optimiser: str) -> None:
    """Complain of a setting that needs a buffer which the config left out.

    Raises:
        InvalidInput: the setting is not the number zero.
    """
    if not off(setting):
        raise InvalidInput(
            f"{optimiser} was built without {name}, so that it keeps no buffer for it; give its config a {name} above "
            "0 to set or learn it",
            field=f"/algorithm/inner_optimiser/{name}",
            rule="above 0 where it is set or learned",
            value=0,
        )
