"""The maze: a task is a handful of episodes, and the loss that of an actor-critic.

Shape suffixes: S support episodes, Q query episodes, B episodes, N = 2 · horizon + 1 numbers of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from warploom.functional import forward
from warploom.models.base import Model
from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.maze import MazeConfig
from warploom.tasks.data import OneTask, stack
from warploom.types import TaskRef, Tasks


class Maze(TaskFamily[MazeConfig]):
    """All chance of an episode is its row of uniform numbers: the goal, the choice at each step, each throw.

    So an episode is a pure function of the net's parameters, and of the row; a recurrent model (`rnn`, `plastic_rnn`,
    `warp_rnn`) walks through it and gives the actor-critic loss and the return of each episode.

    Args:
        config: see `MazeConfig`.

    Example:
        >>> tasks = Maze(MazeConfig(horizon=20, episodes=3)).sample([TaskRef("train", 0, seed=1)])
        >>> tuple(tasks.support_x.shape)
        (1, 3, 41)

    Source: Miconi et al., ICLR 2019, section 4.2; loss as in the authors' published code.
    Departures: a thrown walker never lands on a pillar or on the goal; an episode's first reward counts.
    """

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name; the targets are empty rows, because the walker's reward comes from the maze."""
        return stack(refs, [self._one(ref) for ref in refs])

    def loss(
        self,
        model: Model,
        params: Mapping[str, Tensor],
        x_B: Tensor,
        y_B: Tensor,  # noqa: ARG002
        stats: Mapping[str, Tensor],
    ) -> Tensor:
        """The mean actor-critic loss of the episodes."""
        return forward(model, params, x_B, stats)[..., 0].mean()

    def scores(self, outputs_Q: Tensor, y_Q: Tensor) -> dict[str, float]:  # noqa: ARG002
        """`loss`, and `return`: the sum of an episode's rewards, without discount."""
        return {"loss": float(outputs_Q[..., 0].mean()), "return": float(outputs_Q[..., 1].mean())}

    def _one(self, ref: TaskRef) -> OneTask:
        config = self.config
        chance = generator("maze", ref.split, ref.seed, ref.index)
        total = config.episodes + config.query_episodes
        u_BN = torch.rand(total, 2 * config.horizon + 1, generator=chance)
        if config.goal == "task":
            u_BN[:, 0] = u_BN[0, 0]
        nothing = torch.zeros(total, 2)
        cut = config.episodes
        return OneTask(u_BN[:cut], nothing[:cut], u_BN[cut:], nothing[cut:])
