"""The maze's rules, the walkers' losses by hand, and plastic updates on two units."""

from __future__ import annotations

import pytest
import torch

from warploom.build import build
from warploom.errors import UnfitPair
from warploom.functional import forward
from warploom.models.agents import Gated, Plastic, build_rnn, build_warp_rnn
from warploom.models.configs.agents import RNNConfig, WarpRNNConfig
from warploom.spec import JobSpec
from warploom.tasks.configs.maze import MazeConfig
from warploom.tasks.labyrinth import MOVES, begin, labyrinth, move, observe
from warploom.types import TaskRef

SMALL = {"name": "maze", "cells": 5, "horizon": 6, "episodes": 3, "query_episodes": 2}


def step(maze, now, action, throw=0.0):
    count = now.place_B.shape[0]
    actions = torch.full((count,), action)
    return move(maze, now, actions, torch.full((count,), throw), reward=10.0, wall_penalty=1.0)


def test_the_layout_has_pillars_where_row_and_column_are_even_but_in_the_centre():
    maze = labyrinth(7)
    inside = maze.walls_GG[1:-1, 1:-1]
    pillars = {(r, c) for r in range(7) for c in range(7) if inside[r, c]}
    assert pillars == {(r, c) for r in (1, 3, 5) for c in (1, 3, 5)} - {(3, 3)}
    assert bool((maze.walls_GG[0] == 1).all() and (maze.walls_GG[:, -1] == 1).all())
    assert maze.centre == 4 * 9 + 4
    assert maze.free_F.shape == (49 - 8,)


def test_goals_are_every_free_cell_but_the_start():
    maze = labyrinth(5)
    now = begin(maze, torch.arange(1000) / 1000)
    assert set(now.goal_B.tolist()) == set(maze.free_F.tolist()) - {maze.centre}
    assert set(now.place_B.tolist()) == {maze.centre}


def test_walls_stop_and_cost_and_the_goal_pays_and_throws():
    maze = labyrinth(5)
    side = 7
    now = begin(maze, torch.zeros(1))._replace(goal_B=torch.tensor([1 * side + 3]))
    now = step(maze, now, 0)
    assert now.place_B.tolist() == [2 * side + 3]
    assert now.reward_B.tolist() == [0.0]
    right = step(maze, now, 3)
    assert right.place_B.tolist() == [2 * side + 3], "a pillar stands to the right"
    assert right.reward_B.tolist() == [-1.0]
    places = set()
    for throw in torch.arange(100) / 100:
        there = step(maze, now, 0, float(throw))
        assert there.reward_B.tolist() == [10.0]
        places.add(int(there.place_B))
    assert places == set(maze.free_F.tolist()) - {1 * side + 3}


def test_the_view_shows_walls_time_reward_and_the_last_action():
    maze = labyrinth(5)
    now = begin(maze, torch.zeros(2))
    seen = observe(maze, now, 0, 10)
    assert seen.shape == (2, 17)
    assert seen[0].tolist() == [1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    later = observe(maze, step(maze, now, 2), 5, 10)
    assert later[0, 9:].tolist() == [0, 1, 0.5, 0, 0, 0, 1, 0]


def test_loss_and_return_are_those_of_a_walk_by_hand():
    config = MazeConfig(cells=5, horizon=5, reward=3.0, wall_penalty=0.5)
    model = build_rnn(RNNConfig(hidden=4), config)
    params = {name: value.double() for name, value in model.initial(0).items()}
    u_BN = torch.rand(4, 11, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = forward(model, params, u_BN)
    maze = labyrinth(5)
    for b in range(4):
        now = begin(maze, u_BN[b : b + 1, 0])
        h = torch.zeros(1, 4, dtype=torch.float64)
        terms, rewards = [], []
        for t in range(5):
            o = observe(maze, now, t, 5)
            h = torch.tanh(
                o @ params["cell.inward.weight"].T + params["cell.inward.bias"] + h @ params["cell.around.weight"].T
            )
            p = torch.softmax(h @ params["head_policy.weight"].T + params["head_policy.bias"], 1)[0]
            value = (h @ params["head_value.weight"].T + params["head_value.bias"])[0, 0]
            action = next((a for a in range(3) if u_BN[b, 1 + t] < p[: a + 1].sum()), 3)
            now = move(maze, now, torch.tensor([action]), u_BN[b : b + 1, 6 + t], reward=3.0, wall_penalty=0.5)
            terms.append((p, action, value))
            rewards.append(float(now.reward_B))
        loss = 0.0
        for t, (p, action, value) in enumerate(terms):
            ahead = sum(0.9 ** (i - t) * rewards[i] for i in range(t, 5)) - value
            loss = loss - torch.log(p[action]) * ahead + 0.1 * ahead**2 + 0.03 * (p**2).sum()
        torch.testing.assert_close(found[b, 0], loss / 5)
        assert float(found[b, 1]) == pytest.approx(sum(rewards))


@pytest.mark.parametrize("modulation", ["none", "simple", "retroactive"])
def test_the_plastic_update_is_the_published_one_on_two_units(modulation):
    torch.manual_seed(3)
    cell = Plastic(2, modulation).double()
    with torch.no_grad():
        cell.plasticity.copy_(torch.tensor([[0.5, -0.2], [0.1, 0.3]]))
    o = torch.rand(2, 1, 17, dtype=torch.float64)
    memory = cell.blank(o[0])
    W, b, U = cell.inward.weight, cell.inward.bias, cell.around.weight
    h, P, E = torch.zeros(2).double(), torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    for t in range(2):
        memory = cell(o[t], memory)
        new = torch.stack(
            [
                torch.tanh(
                    W[i] @ o[t, 0] + b[i] + sum((U[i, j] + cell.plasticity[i, j] * P[i, j]) * h[j] for j in (0, 1))
                )
                for i in (0, 1)
            ]
        )
        pair = torch.stack([torch.stack([new[i] * h[j] for j in (0, 1)]) for i in (0, 1)])
        if modulation == "none":
            P = (P + cell.rate * pair).clamp(-1, 1)
        else:
            M = torch.tanh(cell.modulator.weight[0] @ new + cell.modulator.bias[0])
            P = (P + M * (pair if modulation == "simple" else E)).clamp(-1, 1)
            if modulation == "retroactive":
                E = (1 - cell.rate) * E + cell.rate * pair
        h = new
    torch.testing.assert_close(memory[0][0], h)
    torch.testing.assert_close(memory[1][0], P)
    torch.testing.assert_close(memory[2][0], E)


def test_the_gates_are_five_disjoint_slices():
    cell = Gated(3, 4)
    assert cell.warp_gates.weight.shape == (17 + 4 * 3, 4)
    o, memory = torch.rand(1, 17), cell.blank(torch.zeros(1, 17))
    memory = cell(o, memory)
    before = cell(o, memory)[0]
    for start, stop in ((0, 17), (17, 20), (20, 23), (23, 26), (26, 29)):
        with torch.no_grad():
            cell.offset.fill_(0.3)
            kept = cell.warp_gates.weight.clone()
            base = cell(o, memory)[0]
            cell.warp_gates.weight[start:stop] += 1.0
            assert not torch.equal(cell(o, memory)[0], base), (start, stop)
            cell.warp_gates.weight.copy_(kept)
    assert before.shape == (1, 3)


def test_roles_of_the_warped_net():
    model = build_warp_rnn(WarpRNNConfig(hidden=3, warp_hidden=4), MazeConfig())
    assert model.names("warp") == ["cell.warp_lstm.weight", "cell.warp_lstm.bias", "cell.warp_gates.weight"]
    assert {name.split(".")[0] for name in model.names("head")} == {"head_policy", "head_value"}


@pytest.mark.parametrize(
    ("algorithm", "model"),
    [("none", "rnn"), ("none", "plastic_rnn"), ("reptile", "rnn"), ("warpgrad", "warp_rnn"), ("maml", "rnn")],
)
def test_it_trains_and_measures_returns(algorithm, model):
    spec = JobSpec.parse(
        {
            "algorithm": {"name": algorithm, "inner_steps": 2},
            "task": SMALL,
            "model": {"name": model, "hidden": 4},
            "training": {"rounds": 1, "meta_batch": 2},
            "evaluation": {"tasks": 2},
        }
    )
    from warploom.local import train

    metrics = train(spec).metrics
    assert metrics["return"] >= 0
    assert metrics["tasks"] == 2


def test_episodes_of_a_task_share_a_goal_when_asked():
    def family(goal):
        return build(JobSpec.parse({"algorithm": "none", "task": {**SMALL, "goal": goal}, "model": "rnn"})).family

    ref = TaskRef("train", 5, 1)
    one, each = family("task").sample([ref]), family("episode").sample([ref])
    assert one.support_x[0, :, 0].unique().numel() == 1
    assert torch.equal(one.query_x[0, :, 0].unique(), one.support_x[0, :, 0].unique())
    assert each.support_x[0, :, 0].unique().numel() == 3
    assert torch.equal(each.support_x[..., 1:], one.support_x[..., 1:])


def test_a_model_that_cannot_walk_is_refused_with_those_that_can():
    with pytest.raises(UnfitPair, match="use plastic_rnn or rnn or warp_rnn"):
        JobSpec.parse({"algorithm": "none", "task": "maze", "model": "mlp"})
    with pytest.raises(UnfitPair, match="goes with task maze only"):
        JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "rnn"})


def test_four_moves_lead_to_four_neighbours():
    assert sorted(MOVES) == [(-1, 0), (0, -1), (0, 1), (1, 0)]
