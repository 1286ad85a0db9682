"""Sine waves: the regression family of the MAML paper. Shape suffixes: T tasks, S support, Q query, N = S + Q."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.sinusoid import SinusoidConfig
from warploom.tasks.data import OneTask, stack
from warploom.types import TaskRef, Tasks


class Sinusoid(TaskFamily[SinusoidConfig]):
    """y = A sin(x + φ), with A and φ drawn once per task and x once per point, all uniform.

    Args:
        config: A on [`amplitude_min`, `amplitude_max`], φ on [0, `phase_max_rad`], x on [-`x_max`, `x_max`].

    Example:
        >>> tasks = Sinusoid(SinusoidConfig(shots=10)).sample([TaskRef("train", 0, seed=1)])
        >>> tuple(tasks.support_x.shape)
        (1, 10, 1)

    Source: Finn, Abbeel, Levine, ICML 2017, section 5.1.
    Departures: the phase enters as x + φ, where the paper's text leaves the sign open.
    """

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Args:
            refs: their names; the splits are disjoint streams of chance.

        Returns:
            Tasks with x [T, S, 1] and [T, Q, 1], y of the same shapes, float32.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def _one(self, ref: TaskRef) -> OneTask:
        config = self.config
        chance = generator("sinusoid", ref.split, ref.seed, ref.index)
        u_A, u_phase = torch.rand(2, generator=chance)
        amplitude = config.amplitude_min + u_A * (config.amplitude_max - config.amplitude_min)
        x_N1 = (torch.rand(config.shots + config.queries, 1, generator=chance) * 2 - 1) * config.x_max
        y_N1 = amplitude * torch.sin(x_N1 + u_phase * config.phase_max_rad)
        shots = config.shots
        return OneTask(x_N1[:shots], y_N1[:shots], x_N1[shots:], y_N1[shots:])
