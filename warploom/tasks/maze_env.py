"""The maze as Gymnasium environments: one episode, or many side by side.

Same layout, dynamics and observation as the task family `maze`; needs the extra `warploom[gym]`.

Shape suffixes: B episodes.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from warploom.tasks.configs.maze import ACTIONS, OBSERVATION, MazeConfig
from warploom.tasks.labyrinth import Situation, begin, labyrinth, move, observe

Floats = NDArray[np.float32]
Info = dict[str, Any]


class MazeVectorEnv(VectorEnv[Floats, NDArray[np.int64], Any]):
    """B episodes in one maze, each with a goal of its own.

    The observation has 17 numbers: walls in the 3x3 around the walker, row by row; 0, 1, the share of time that is
    over, the last reward; the last action one-hot. Actions: up, down, left, right. Episodes last `horizon` steps and
    are then truncated, all at once; the next step starts new ones.

    Args:
        config: the maze; `goal` task gives all episodes of a reset the same goal.
        num_envs: B.

    Example:
        >>> env = MazeVectorEnv(MazeConfig(cells=5, horizon=10), num_envs=3)
        >>> seen, _ = env.reset(seed=0)
        >>> seen.shape
        (3, 17)
        >>> seen, rewards, terminated, truncated, _ = env.step(env.action_space.sample())
        >>> rewards.shape, bool(truncated.any())
        ((3,), False)

    Source: Miconi et al., ICLR 2019, section 4.2. Departures: as for the family `maze`.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(self, config: MazeConfig | None = None, num_envs: int = 1) -> None:
        self.config = config or MazeConfig()
        self.num_envs = num_envs
        # The last reward is seen, and may be a penalty.
        low, high = -max(1.0, self.config.wall_penalty), max(1.0, self.config.reward)
        self.single_observation_space = Box(low, high, (OBSERVATION,), np.float32)
        self.single_action_space = Discrete(ACTIONS)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._maze = labyrinth(self.config.cells)
        self._now: Situation | None = None
        self._step = 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Floats, Info]:  # noqa: ARG002
        """Everybody in the centre, with a new goal.

        Args:
            seed: of the random numbers from here on; None goes on with those there are.
            options: none.
        """
        super().reset(seed=seed if seed is None else int(seed))
        goal_u_B = self._chance()
        if self.config.goal == "task":
            goal_u_B = goal_u_B[:1].expand(self.num_envs)
        self._now = begin(self._maze, goal_u_B)
        self._step = 0
        return self._seen(), {}

    def step(self, actions: NDArray[np.int64]) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Each episode's next step; after the last one, a reset, for which `actions` do not count."""
        if self._now is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        no = np.zeros(self.num_envs, dtype=np.bool_)
        if self._step == self.config.horizon:
            seen, info = self.reset()
            return seen, np.zeros(self.num_envs, dtype=np.float32), no, no.copy(), info
        self._now = move(
            self._maze,
            self._now,
            torch.as_tensor(np.asarray(actions), dtype=torch.int64),
            self._chance(),
            reward=self.config.reward,
            wall_penalty=self.config.wall_penalty,
        )
        self._step += 1
        over = np.full(self.num_envs, self._step == self.config.horizon)
        return self._seen(), self._now.reward_B.numpy(), no, over, {}

    def _chance(self) -> torch.Tensor:
        return torch.from_numpy(self.np_random.random(self.num_envs, dtype=np.float32))

    def _seen(self) -> Floats:
        assert self._now is not None
        seen: Floats = observe(self._maze, self._now, self._step, self.config.horizon).numpy()
        return seen


class MazeEnv(gymnasium.Env[Floats, np.int64]):
    """One episode at a time; see `MazeVectorEnv`.

    Example:
        >>> env = MazeEnv(MazeConfig(cells=5, horizon=10))
        >>> seen, _ = env.reset(seed=0)
        >>> seen.shape
        (17,)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, config: MazeConfig | None = None) -> None:
        self._many = MazeVectorEnv(config, 1)
        self.observation_space = self._many.single_observation_space
        self.action_space = self._many.single_action_space

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Floats, Info]:
        """To the centre, with a new goal."""
        super().reset(seed=seed)
        seen_B, info = self._many.reset(seed=seed, options=options)
        return seen_B[0], info

    def step(self, action: np.int64) -> tuple[Floats, float, bool, bool, Info]:
        """One step; after the last one `reset` must be called."""
        seen_B, reward_B, _, over_B, info = self._many.step(np.asarray([action]))
        return seen_B[0], float(reward_B[0]), False, bool(over_B[0]), info
