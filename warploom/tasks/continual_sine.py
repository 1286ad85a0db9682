"""Five sub-tasks in a row: a curve that is learned piece by piece.

Shape suffixes: T tasks, S support, Q query, P sub-intervals, N points of a sub-interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from warploom.functional import task_loss
from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.continual_sine import INTERVALS, ContinualSineConfig
from warploom.tasks.data import OneTask, stack
from warploom.types import TaskRef, Tasks

X_MAX = 5.0


class ContinualSine(TaskFamily[ContinualSineConfig]):
    """y = m A_1 sin(ω_1 x + φ_1) + (1 − m) A_2 sin(ω_2 x + φ_2) on [-5, 5], cut into 5 sub-intervals of width 2.

    A, ω, φ and m are drawn once per task, uniform on [`amplitude_min`, `amplitude_max`], [`frequency_min`,
    `frequency_max`], [0, 2π] and [0, 1]. Support and queries hold the sub-intervals in the config's `order`, in equal
    parts, so that of K inner steps each is seen for K/5 (the paper: 5 x 20).

    Args:
        config: see `ContinualSineConfig`.

    Example:
        >>> family = ContinualSine(ContinualSineConfig(shots=4, queries=2, order=(1, 3, 4, 2, 0)))
        >>> x = family.sample([TaskRef("train", 0, seed=1)]).support_x.view(5, 4)
        >>> (x / 2).round().mode().values.int().tolist()
        [-1, 1, 2, 0, -2]

    Source: Flennerhag et al., ICLR 2020: protocol, and the orders 0, 1, 2, 3, 4 and 1, 3, 4, 2, 0.
    Departures: the paper's amplitudes, frequencies and batches were not published; those here are our own.
    """

    @property
    def phases(self) -> int:
        """One for each sub-interval."""
        return self.config.phases

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Returns:
            Tasks with x and y [T, 5 * shots, 1] and [T, 5 * queries, 1], float32.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def scores(self, outputs_Q: Tensor, y_Q: Tensor) -> dict[str, float]:
        """`loss` over all, `nrmse`, and `loss_task0` to `loss_task4` in the order in which sub-tasks are met."""
        found = super().scores(outputs_Q, y_Q)
        parts = zip(outputs_Q.chunk(INTERVALS), y_Q.chunk(INTERVALS), strict=True)
        return found | {
            f"loss_task{i}": float(task_loss("regression", outputs_N, y_N)) for i, (outputs_N, y_N) in enumerate(parts)
        }

    def _one(self, ref: TaskRef) -> OneTask:
        config = self.config
        chance = generator("continual-sine", ref.split, ref.seed, ref.index)
        u = torch.rand(7, generator=chance, dtype=torch.float64)
        amplitude = config.amplitude_min + u[:2] * (config.amplitude_max - config.amplitude_min)
        frequency = config.frequency_min + u[2:4] * (config.frequency_max - config.frequency_min)
        phase, share = u[4:6] * 2 * math.pi, torch.stack([u[6], 1 - u[6]])

        def target(x_PN: Tensor) -> Tensor:
            return (share * amplitude * torch.sin(frequency * x_PN.unsqueeze(-1) + phase)).sum(-1)

        support_PN, query_PN = (_points(count, chance)[list(config.order)] for count in (config.shots, config.queries))
        columns = (support_PN, target(support_PN), query_PN, target(query_PN))
        return OneTask(*(column.reshape(-1, 1).float() for column in columns))


def _points(count: int, chance: Generator) -> Tensor:
    """`count` points in each sub-interval, [P, N]."""
    width = 2 * X_MAX / INTERVALS
    left_P = -X_MAX + width * torch.arange(INTERVALS, dtype=torch.float64)
    return left_P.unsqueeze(1) + width * torch.rand(INTERVALS, count, generator=chance, dtype=torch.float64)
