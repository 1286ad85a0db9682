"""The values that flow through Warploom. Shape suffixes: T tasks, S support, Q query, B batch, K inner steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "validation", "test"]
Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class TaskRef:
    """The name of a task: a family makes the same task from it everywhere, so data never travels.

    Args:
        split: which part of the family it comes from.
        index: its running number. Families with finitely many tasks go through shuffled epochs of them by it.
        seed: the stream that it belongs to (a job's seed, say).
    """

    split: Split
    index: int
    seed: int


@dataclass(frozen=True, slots=True)
class Tasks:
    """T tasks of equal shape, stacked.

    Args:
        refs: their names (empty for a task that a user sent).
        support_x: [T, S, *input] float32.
        support_y: [T, S] int64 class, or [T, S, outputs] float32 target.
        query_x: [T, Q, *input] float32; Q may be 0.
        query_y: like `support_y`.
    """

    refs: tuple[TaskRef, ...]
    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    @property
    def count(self) -> int:
        """T."""
        return self.support_x.shape[0]

    def to(self, device: torch.device | str) -> Tasks:
        """The same tasks on `device`."""
        return replace(
            self,
            support_x=self.support_x.to(device),
            support_y=self.support_y.to(device),
            query_x=self.query_x.to(device),
            query_y=self.query_y.to(device),
        )


@dataclass(frozen=True, slots=True)
class MetaState:
    """All that meta-training learns.

    Args:
        version: outer rounds that it has seen.
        params: the model's parameters by name; those of role adapt and head are the initialisation.
        stats: running statistics of batch normalisation (`bn_mode` running), else empty.
    """

    version: int
    params: Tensors
    stats: Tensors = field(default_factory=dict)

    def to(self, device: torch.device | str) -> MetaState:
        """The same state on `device`."""
        return replace(
            self,
            params={name: value.to(device) for name, value in self.params.items()},
            stats={name: value.to(device) for name, value in self.stats.items()},
        )


@dataclass(frozen=True, slots=True)
class Adapted:
    """T adapted models.

    Args:
        params: the adapted parameters only, each [T, *shape].
        stats: statistics of batch normalisation for prediction, each [T, *shape]; empty if transductive.
        losses_TK: support loss before each step and after the last, [T, steps + 1].
    """

    params: Tensors
    stats: Tensors
    losses_TK: Tensor


@dataclass(frozen=True, slots=True)
class Experience:
    """What one task taught: points of its trajectory, and/or a ready gradient.

    Args:
        ref: the task.
        version: the meta version that it was collected under.
        steps: the inner step k of each point.
        points: θ_k, each [P, *shape]; empty when the algorithm needs none.
        gradient: a ready meta-gradient by parameter name; may be empty.
        stats: statistics of batch normalisation of this task; may be empty.
        metrics: numbers to show (`support_loss_first`, `support_loss_last`…).
        weight: factor of its gradients; other than 1 only from a prioritised sample.
    """

    ref: TaskRef
    version: int
    steps: tuple[int, ...] = ()
    points: Mapping[str, Tensor] = field(default_factory=dict)
    gradient: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Gradient:
    """A mean gradient and the number of samples that it is the mean of, so that shares of a sample can be joined."""

    values: Tensors
    weight: float
