"""Random functions of several variables, the synthetic families of A-MAML: `cosmixture` and `alpine`.

Shape suffixes: T tasks, S support, Q query, N points, D variables.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Generator, Tensor

from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.functions import AlpineConfig, CosMixtureConfig, FunctionTaskConfig
from warploom.tasks.data import OneTask, pick_of_epoch, stack
from warploom.types import Split, TaskRef, Tasks

ConfigT = TypeVar("ConfigT", bound=FunctionTaskConfig)

TASKS_FOR_SCALE, POINTS_FOR_SCALE = 200, 1000


class RandomFunctions(TaskFamily[ConfigT], Generic[ConfigT]):
    """y = f(x; p) with p drawn once per task and x uniform on a cube, both standardised.

    x is scaled by the exact moments of its distribution. y is scaled by its mean and standard deviation over the
    training functions (at most 200 of them, at 1000 points each), or over those of all splits. Without an end of
    functions the first 200 training functions of a stream of its own stand for all.

    Departures from the authors' code: support and query points are drawn anew for each ref, not out of a pool of 1000;
    test functions have no say in the scale of y unless `standardise` is "all".
    """

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config)
        self.y_mean, self.y_std = self._scale() if config.standardise != "none" else (0.0, 1.0)
        self.x_std = config.x_max / math.sqrt(3) if config.standardise != "none" else 1.0

    @abstractmethod
    def draw(self, chance: Generator) -> Tensor:
        """The numbers p of one function, float64."""

    @abstractmethod
    def values(self, p: Tensor, x_ND: Tensor) -> Tensor:
        """f(x; p), [N]."""

    def size(self, split: Split) -> int | None:  # noqa: ARG002
        """How many functions each split has."""
        return self.config.tasks

    def identity(self, ref: TaskRef) -> int | None:
        """The number of the function."""
        return None if self.config.tasks is None else pick_of_epoch(ref, self.config.tasks)

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Args:
            refs: their names. With finitely many functions each epoch of refs goes once through those of the split.

        Returns:
            Tasks with x [T, S, D] and [T, Q, D], y [T, S, 1] and [T, Q, 1], float32.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def scores(self, outputs_Q: Tensor, y_Q: Tensor) -> dict[str, float]:
        """`loss` and `nrmse`; of standardised y the latter is √loss, the units being those of all functions."""
        found = super().scores(outputs_Q, y_Q)
        return found if self.config.standardise == "none" else found | {"nrmse": math.sqrt(found["loss"])}

    def _one(self, ref: TaskRef) -> OneTask:
        config = self.config
        chance = generator(config.name, "points", ref.split, ref.seed, ref.index)
        which = self.identity(ref)
        p = self.draw(chance) if which is None else self._function(ref.split, which)
        x_ND = self._points(config.shots + config.queries, chance)
        y_N1 = (self.values(p, x_ND).unsqueeze(-1) - self.y_mean) / self.y_std
        x_ND, y_N1, shots = (x_ND / self.x_std).float(), y_N1.float(), config.shots
        return OneTask(x_ND[:shots], y_N1[:shots], x_ND[shots:], y_N1[shots:])

    def _function(self, split: str, which: int) -> Tensor:
        return self.draw(generator(self.config.name, "function", self.config.world_seed, split, which))

    def _points(self, count: int, chance: Generator) -> Tensor:
        u_ND = torch.rand(count, self.config.dim, generator=chance, dtype=torch.float64)
        return (2 * u_ND - 1) * self.config.x_max

    def _scale(self) -> tuple[float, float]:
        config = self.config
        everywhere = config.standardise == "all" and config.tasks is not None
        splits = ("train", "validation", "test") if everywhere else ("train",)
        count = TASKS_FOR_SCALE if config.tasks is None else min(config.tasks, TASKS_FOR_SCALE)
        found = []
        for split in splits:
            for which in range(count):
                chance = generator(config.name, "scale", config.world_seed, split, which)
                p = self.draw(chance) if config.tasks is None else self._function(split, which)
                found.append(self.values(p, self._points(POINTS_FOR_SCALE, chance)))
        y = torch.cat(found)
        return float(y.mean()), float(y.std(correction=0))


class CosMixture(RandomFunctions[CosMixtureConfig]):
    """f(x) = −c Σ_i cos(ω x_i + φ) − Σ_i x_i².

    `slides`: c = 0.1 A with A on [0.1, 1], ω on [0.5π, 2π], φ on [3, 6].
    `code`: c on [0.1, 1], ω on [3π, 6π], φ on [0.5, 2]: phase and frequency have changed places. All uniform.

    Example:
        >>> family = CosMixture(CosMixtureConfig())
        >>> float(family.values(torch.tensor([0.5, 1.0, 0.0]), torch.zeros(1, 2)))
        -1.0

    Source: Li et al., AISTATS 2023 (A-MAML), slides and authors' code.
    """

    def draw(self, chance: Generator) -> Tensor:
        """c, ω and φ."""
        ranges = (
            [(0.01, 0.1), (0.5 * math.pi, 2 * math.pi), (3.0, 6.0)]
            if self.config.variant == "slides"
            else [(0.1, 1.0), (3 * math.pi, 6 * math.pi), (0.5, 2.0)]
        )
        low, high = torch.tensor(ranges, dtype=torch.float64).unbind(1)
        u: Tensor = torch.rand(3, generator=chance, dtype=torch.float64)
        return low + u * (high - low)

    def values(self, p: Tensor, x_ND: Tensor) -> Tensor:
        """f at each point."""
        cosines: Tensor = torch.cos(p[1] * x_ND + p[2]).sum(-1)
        return -p[0] * cosines - x_ND.square().sum(-1)


class Alpine(RandomFunctions[AlpineConfig]):
    """f(x) = Σ_i |x_i sin(x_i + φ_i) + 0.1 x_i|.

    `slides`: each φ_i uniform on [−5π/12, 5π/12]. `code`: all φ_i = π + kπ/12 with one k uniform on [−5, 5] (the code
    draws a second k and never uses it).

    Example:
        >>> round(float(Alpine(AlpineConfig()).values(torch.zeros(2), torch.full((1, 2), torch.pi / 2))), 4)
        3.4558

    Source: Li et al., AISTATS 2023 (A-MAML), slides and authors' code.
    """

    def draw(self, chance: Generator) -> Tensor:
        """φ, [D]."""
        code, limit = self.config.variant == "code", 5 * math.pi / 12
        u = torch.rand(1 if code else self.config.dim, generator=chance, dtype=torch.float64)
        return ((2 * u - 1) * limit + (math.pi if code else 0.0)).expand(self.config.dim)

    def values(self, p: Tensor, x_ND: Tensor) -> Tensor:
        """f at each point."""
        return (x_ND * torch.sin(x_ND + p) + 0.1 * x_ND).abs().sum(-1)
