"""The maze as pure functions of tensors, for many episodes at once, and as a Gymnasium environment.

Shape suffixes: B episodes, F free cells, G grid side (cells + 2, with the outer wall).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right: row and column
VIEW = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))


class Labyrinth(NamedTuple):
    """The layout.

    Args:
        walls_GG: 1.0 where a cell is wall.
        free_F: the free cells, row * G + column.
        centre: the cell in which every episode starts.
    """

    walls_GG: Tensor
    free_F: Tensor
    centre: int


class Situation(NamedTuple):
    """Where each episode stands.

    Args:
        place_B: the walker's cell, row * G + column.
        goal_B: the goal's cell.
        reward_B: of the last step.
        action_B: the last action; -1 before the first.
    """

    place_B: Tensor
    goal_B: Tensor
    reward_B: Tensor
    action_B: Tensor


def labyrinth(cells: int) -> Labyrinth:
    """The maze with `cells` free or pillar cells a side: pillars where row and column are both even, the centre free.

    Example:
        >>> maze = labyrinth(5)
        >>> int(maze.walls_GG[1:-1, 1:-1].sum())
        4
    """
    side = cells + 2
    walls = torch.ones(side, side)
    walls[1:-1, 1:-1] = 0.0
    walls[2:-1:2, 2:-1:2] = 1.0
    middle = side // 2
    walls[middle, middle] = 0.0
    return Labyrinth(walls, torch.nonzero(walls.flatten() == 0).flatten(), middle * side + middle)


def begin(maze: Labyrinth, goal_u_B: Tensor) -> Situation:
    """Everybody in the centre, the goal in any other free cell as the numbers in [0, 1) say."""
    others = maze.free_F[maze.free_F != maze.centre].to(goal_u_B.device)
    goal_B = others[_pick(goal_u_B, others.shape[0])]
    place_B = torch.full_like(goal_B, maze.centre)
    return Situation(place_B, goal_B, torch.zeros_like(goal_u_B), torch.full_like(goal_B, -1))


def move(
    maze: Labyrinth, now: Situation, action_B: Tensor, throw_u_B: Tensor, *, reward: float, wall_penalty: float
) -> Situation:
    """One step. A wall stops the walker; on the goal it is rewarded and thrown to a free cell other than the goal.

    Args:
        action_B: 0 to 3, int64.
        throw_u_B: numbers in [0, 1) that say where to, if it comes to that.
    """
    side = maze.walls_GG.shape[0]
    device = now.place_B.device
    offsets = torch.tensor([row * side + column for row, column in MOVES], device=device)
    ahead_B = now.place_B + offsets[action_B]
    blocked_B = maze.walls_GG.flatten().to(device)[ahead_B] > 0
    place_B = torch.where(blocked_B, now.place_B, ahead_B)
    found_B = place_B == now.goal_B
    free_F = maze.free_F.to(device)
    # Counting past the goal in the list of free cells leaves each of the others equally likely.
    goal_at_B = torch.searchsorted(free_F, now.goal_B)
    thrown_B = free_F[(goal_at_B + 1 + _pick(throw_u_B, free_F.shape[0] - 1)) % free_F.shape[0]]
    reward_B = found_B.to(now.reward_B) * reward - blocked_B.to(now.reward_B) * wall_penalty
    return Situation(torch.where(found_B, thrown_B, place_B), now.goal_B, reward_B, action_B)


def observe(maze: Labyrinth, now: Situation, step: int, horizon: int) -> Tensor:
    """What the walker sees, [B, 17]: walls in the 3x3 around it; 0, 1, the share of time that is over, the last reward;
    the last action one-hot."""
    side = maze.walls_GG.shape[0]
    device = now.place_B.device
    offsets = torch.tensor([row * side + column for row, column in VIEW], device=device)
    view_B9 = maze.walls_GG.flatten().to(device)[now.place_B[:, None] + offsets].to(now.reward_B)
    zero_B = torch.zeros_like(now.reward_B)
    aux_B4 = torch.stack([zero_B, zero_B + 1, zero_B + step / horizon, now.reward_B], 1)
    last_B4 = (now.action_B[:, None] == torch.arange(len(MOVES), device=device)).to(now.reward_B)
    return torch.cat([view_B9, aux_B4, last_B4], 1)


def _pick(u_B: Tensor, count: int) -> Tensor:
    return (u_B * count).long().clamp(max=count - 1)
