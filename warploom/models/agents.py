"""Recurrent actor-critics for the maze: plain, plastic, and warped.

Shape suffixes: B episodes, D observation, H recurrent units, A actions, N numbers of an episode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from warploom.configs import TaskConfig
from warploom.models.base import Model, make_model
from warploom.models.configs.agents import PlasticRNNConfig, RNNConfig, WarpRNNConfig
from warploom.tasks.configs.maze import ACTIONS, OBSERVATION, MazeConfig
from warploom.tasks.labyrinth import begin, labyrinth, move, observe

Memory = tuple[Tensor, ...]


class Cell(nn.Module, ABC):
    """One step of recurrence; the memory begins at zero."""

    @abstractmethod
    def blank(self, like_B: Tensor) -> Memory:
        """The memory before an episode; its first tensor is what the heads look at."""

    @abstractmethod
    def forward(self, o_BD: Tensor, memory: Memory) -> Memory:
        """The next memory."""


class Plain(Cell):
    """h ← tanh(W o + U h + b)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inward = nn.Linear(OBSERVATION, hidden)
        self.around = nn.Linear(hidden, hidden, bias=False)

    def blank(self, like_B: Tensor) -> Memory:
        """h = 0."""
        return (like_B.new_zeros(like_B.shape[0], self.hidden),)

    def forward(self, o_BD: Tensor, memory: Memory) -> Memory:
        """One step."""
        return (torch.tanh(self.inward(o_BD) + self.around(memory[0])),)


class Plastic(Cell):
    """h ← tanh(W o + (U + a ⊙ P) h + b), with P the plastic part of this episode.

    With M = tanh(m · h) of the new h and x = h before, y = h after the step:
    none: P ← clip(P + η y xᵀ); simple: P ← clip(P + M y xᵀ);
    retroactive: P ← clip(P + M E), then E ← (1 − η) E + η y xᵀ. clip is to ±1, η learned.
    """

    def __init__(self, hidden: int, modulation: str) -> None:
        super().__init__()
        self.hidden, self.modulation = hidden, modulation
        self.inward = nn.Linear(OBSERVATION, hidden)
        self.around = nn.Linear(hidden, hidden, bias=False)
        self.plasticity = nn.Parameter(0.01 * torch.randn(hidden, hidden))
        if modulation != "simple":
            self.rate = nn.Parameter(torch.tensor(0.1))
        if modulation != "none":
            self.modulator = nn.Linear(hidden, 1)

    def blank(self, like_B: Tensor) -> Memory:
        """h = 0, P = 0, E = 0."""
        B, H = like_B.shape[0], self.hidden
        return like_B.new_zeros(B, H), like_B.new_zeros(B, H, H), like_B.new_zeros(B, H, H)

    def forward(self, o_BD: Tensor, memory: Memory) -> Memory:
        """One step, and the change of the plastic part that it brings."""
        before_BH, plastic_BHH, trace_BHH = memory
        weights_BHH = self.around.weight + self.plasticity * plastic_BHH
        after_BH = torch.tanh(self.inward(o_BD) + (weights_BHH @ before_BH.unsqueeze(-1)).squeeze(-1))
        pair_BHH = after_BH.unsqueeze(2) * before_BH.unsqueeze(1)
        if self.modulation == "none":
            return after_BH, (plastic_BHH + self.rate * pair_BHH).clamp(-1, 1), trace_BHH
        signal_B11 = torch.tanh(self.modulator(after_BH)).unsqueeze(-1)
        if self.modulation == "simple":
            return after_BH, (plastic_BHH + signal_B11 * pair_BHH).clamp(-1, 1), trace_BHH
        changed_BHH = (plastic_BHH + signal_B11 * trace_BHH).clamp(-1, 1)
        return after_BH, changed_BHH, (1 - self.rate) * trace_BHH + self.rate * pair_BHH


class Gated(Cell):
    """h ← tanh(g2 ⊙ W(g0 ⊙ o) + g3 ⊙ U(g1 ⊙ h) + g4 ⊙ b), with the gates from an LSTM that sees o and h.

    (g0, g1, g2, g3, g4) = tanh(P z), z the LSTM's output. W and U adapt, the LSTM and P warp.
    """

    def __init__(self, hidden: int, warp_hidden: int) -> None:
        super().__init__()
        self.hidden, self.warp_hidden = hidden, warp_hidden
        self.inward = nn.Linear(OBSERVATION, hidden, bias=False)
        self.around = nn.Linear(hidden, hidden, bias=False)
        self.offset = nn.Parameter(torch.zeros(hidden))
        nn.init.orthogonal_(self.inward.weight)
        nn.init.orthogonal_(self.around.weight)
        self.warp_lstm = nn.Linear(OBSERVATION + hidden + warp_hidden, 4 * warp_hidden)
        self.warp_gates = nn.Linear(warp_hidden, OBSERVATION + 4 * hidden, bias=False)

    def blank(self, like_B: Tensor) -> Memory:
        """h = 0, and the LSTM's output and cell at 0."""
        B = like_B.shape[0]
        return (like_B.new_zeros(B, self.hidden), *(like_B.new_zeros(B, self.warp_hidden) for _ in range(2)))

    def forward(self, o_BD: Tensor, memory: Memory) -> Memory:
        """One step of the LSTM, then one of the gated net."""
        h_BH, z_BW, c_BW = memory
        forget, enter, leave, value = self.warp_lstm(torch.cat([o_BD, h_BH, z_BW], 1)).chunk(4, 1)
        c_BW = torch.sigmoid(forget) * c_BW + torch.sigmoid(enter) * torch.tanh(value)
        z_BW = torch.sigmoid(leave) * torch.tanh(c_BW)
        sizes = [OBSERVATION, *[self.hidden] * 4]
        g0, g1, g2, g3, g4 = torch.split(torch.tanh(self.warp_gates(z_BW)), sizes, 1)
        inner_BH = g2 * self.inward(g0 * o_BD) + g3 * self.around(g1 * h_BH) + g4 * self.offset
        return torch.tanh(inner_BH), z_BW, c_BW


class Walker(nn.Module):
    """A cell with a policy and a value head, walking through episodes of a maze.

    The loss of an episode is, with R_t the discounted return, v_t the value, p_t the policy and a_t the action,

        (1/horizon) Σ_t [−log p_t(a_t) (R_t − v_t) + w_v (R_t − v_t)² + w_s Σ_a p_t(a)²],

    R_t − v_t being a constant in the first term. The choice of an action carries no derivative.
    """

    def __init__(self, cell: Cell, hidden: int, task: MazeConfig) -> None:
        super().__init__()
        self.cell, self.task = cell, task
        self.head_policy = nn.Linear(hidden, ACTIONS)
        self.head_value = nn.Linear(hidden, 1)
        self.maze = labyrinth(task.cells)

    def forward(self, u_BN: Tensor) -> Tensor:
        """[B, 2 · horizon + 1] → loss and return of each episode, [B, 2]."""
        task, horizon = self.task, self.task.horizon
        now = begin(self.maze, u_BN[:, 0])
        memory = self.cell.blank(u_BN)
        logs, values, spreads, rewards = [], [], [], []
        for t in range(horizon):
            memory = self.cell(observe(self.maze, now, t, horizon), memory)
            log_BA = torch.log_softmax(self.head_policy(memory[0]), 1)
            p_BA = log_BA.exp()
            # The number of actions whose cumulated probability lies below u; the last action takes what rounds off.
            action_B = (p_BA.detach().cumsum(1)[:, :-1] <= u_BN[:, 1 + t : 2 + t]).sum(1)
            now = move(
                self.maze,
                now,
                action_B,
                u_BN[:, 1 + horizon + t],
                reward=task.reward,
                wall_penalty=task.wall_penalty,
            )
            logs.append(log_BA.gather(1, action_B[:, None])[:, 0])
            values.append(self.head_value(memory[0])[:, 0])
            spreads.append(p_BA.square().sum(1))
            rewards.append(now.reward_B)
        returned_B = torch.zeros_like(u_BN[:, 0])
        loss_B = torch.zeros_like(returned_B)
        for t in reversed(range(horizon)):
            returned_B = rewards[t] + task.discount * returned_B
            ahead_B = returned_B - values[t]
            loss_B = loss_B - logs[t] * ahead_B.detach()
            loss_B = loss_B + task.value_weight * ahead_B.square() + task.spread_weight * spreads[t]
        return torch.stack([loss_B / horizon, torch.stack(rewards).sum(0)], 1)


def build_rnn(config: RNNConfig, task: TaskConfig) -> Model:
    """The plain walker.

    Example:
        >>> build_rnn(RNNConfig(hidden=8), MazeConfig()).names("head")[0]
        'head_policy.weight'
    """
    return _build(lambda: Plain(config.hidden), config, task)


def build_plastic_rnn(config: PlasticRNNConfig, task: TaskConfig) -> Model:
    """The walker with plastic weights."""
    return _build(lambda: Plastic(config.hidden, config.modulation), config, task)


def build_warp_rnn(config: WarpRNNConfig, task: TaskConfig) -> Model:
    """The walker gated by an LSTM."""
    return _build(lambda: Gated(config.hidden, config.warp_hidden), config, task)


def _build(cell: Any, config: RNNConfig, task: TaskConfig) -> Model:
    maze = cast("MazeConfig", task)
    return make_model(lambda: Walker(cell(), config.hidden, maze), config.role, task.kind)
