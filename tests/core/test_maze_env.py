"""The maze as Gymnasium environments: Gymnasium's own checker, and the same episodes as the task family's."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch.func import functional_call

from warploom.models.agents import build_rnn
from warploom.models.configs.agents import RNNConfig
from warploom.tasks.configs.maze import MazeConfig
from warploom.tasks.maze_env import MazeEnv, MazeVectorEnv


class Script:
    """Stands for the environment's source of chance: hands out rows that were written down before."""

    def __init__(self, rows):
        self.rows = iter(rows)

    def random(self, size, dtype):
        row = next(self.rows)
        assert row.shape == (size,)
        return row.astype(dtype)


@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
def test_gymnasiums_checker_accepts_it():
    check_env(MazeEnv(MazeConfig(cells=5, horizon=20, wall_penalty=0.5)))


def test_an_episode_is_that_of_the_task_family():
    """A recurrent walker through the family, and the same net stepped by hand through the environment."""
    config = MazeConfig(cells=5, horizon=25, wall_penalty=0.25)
    model = build_rnn(RNNConfig(hidden=6), config)
    torch.manual_seed(1)
    walker = model.module
    params = {name: 0.7 * torch.randn_like(value) for name, value in walker.named_parameters()}
    u_BN = torch.rand(4, 2 * config.horizon + 1, generator=torch.Generator().manual_seed(2))
    expected_B2 = functional_call(walker, params, (u_BN,))

    env = MazeVectorEnv(config, 4)
    env.np_random = Script([u_BN[:, 0].numpy(), *u_BN[:, 1 + config.horizon :].T.numpy()])
    seen, _ = env.reset()
    memory_BH = torch.zeros(4, 6)
    total_B = np.zeros(4)
    for t in range(config.horizon):
        inward = torch.from_numpy(seen) @ params["cell.inward.weight"].T + params["cell.inward.bias"]
        memory_BH = torch.tanh(inward + memory_BH @ params["cell.around.weight"].T)
        logits = memory_BH @ params["head_policy.weight"].T + params["head_policy.bias"]
        below = logits.softmax(1).cumsum(1)[:, :-1] <= u_BN[:, 1 + t : 2 + t]
        seen, rewards, terminated, truncated, _ = env.step(below.sum(1).numpy())
        total_B += rewards
        assert not terminated.any()
        assert truncated.all() == (t == config.horizon - 1)
    np.testing.assert_allclose(total_B, expected_B2[:, 1].numpy(), rtol=1e-6)
    assert len(set(total_B.round(3))) > 1, "the episodes differ"


def test_a_seed_makes_the_same_episodes_and_the_end_starts_new_ones():
    env = MazeVectorEnv(MazeConfig(cells=5, horizon=3, goal="task"), 2)
    actions = np.array([0, 3])

    def walk():
        seen, _ = env.reset(seed=7)
        return [seen, *(env.step(actions)[0] for _ in range(5))]

    first, again = walk(), walk()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert first[3][0, 11] == 1.0, "time is over"
    assert first[4][0, 11] == 0.0, "a new episode"
    env.reset(seed=3)
    assert env._now.goal_B[0] == env._now.goal_B[1]


def test_observations_stay_in_their_space():
    env = MazeVectorEnv(MazeConfig(cells=5, horizon=40, reward=3.0, wall_penalty=2.0), 16)
    seen, _ = env.reset(seed=0)
    env.action_space.seed(0)
    rewards = []
    for _ in range(40):
        assert env.observation_space.contains(seen)
        seen, reward, *_ = env.step(env.action_space.sample())
        rewards.append(reward)
    assert set(np.unique(rewards)) == {-2.0, 0.0, 3.0}


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        MazeEnv().step(np.int64(0))
