"""What a task family is: a pure function from a task's name to its data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Generator, Tensor

from warploom.configs import TaskConfig
from warploom.functional import loss, task_loss
from warploom.models.base import Model
from warploom.types import Split, TaskRef, Tasks

ConfigT = TypeVar("ConfigT", bound=TaskConfig)


class TaskFamily(ABC, Generic[ConfigT]):
    """A distribution over tasks.

    Equal refs give equal tasks, in every process and whatever else was sampled before. The splits share no class
    (and, where there are alphabets, no alphabet).
    """

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name, stacked in that order."""

    def size(self, split: Split) -> int | None:  # noqa: ARG002
        """How many distinct tasks a split has; None when there is no end of them."""
        return None

    def identity(self, ref: TaskRef) -> int | None:  # noqa: ARG002
        """Which of the `size` tasks of its split `ref` is about, from 0; None where tasks have no numbers."""
        return None

    @property
    def phases(self) -> int:
        """Sub-tasks that follow each other while a task adapts (see `warploom.inner.SupportBatches`)."""
        return 1

    def loss(
        self, model: Model, params: Mapping[str, Tensor], x_B: Tensor, y_B: Tensor, stats: Mapping[str, Tensor]
    ) -> Tensor:
        """The loss of one batch of one task, a scalar: cross-entropy or mean squared error, by the model's kind."""
        return loss(model, params, x_B, y_B, stats)

    def scores(self, outputs_Q: Tensor, y_Q: Tensor) -> dict[str, float]:
        """What evaluation tells about one task's queries: `loss`, and `accuracy` or `nrmse`.

        `nrmse` is the root of the mean squared error, in units of the queries' own standard deviation.
        """
        found = {"loss": float(task_loss(self.config.kind, outputs_Q, y_Q))}
        if self.config.kind == "classification":
            found["accuracy"] = float((outputs_Q.argmax(-1) == y_Q).to(torch.float64).mean())
        elif y_Q.shape[0] > 1:
            found["nrmse"] = math.sqrt(found["loss"]) / max(float(y_Q.std(0, correction=0).mean()), 1e-12)
        return found

    def augment(self, x_B: Tensor, generator: Generator) -> Tensor:  # noqa: ARG002
        """The batch [B, *input] as a step of adaptation sees it; batched, and random by `generator` alone."""
        return x_B
