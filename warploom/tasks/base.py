"""What a task family is: a pure function from a task's name to its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from torch import Generator, Tensor

from warploom.configs import TaskConfig
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

    def augment(self, x_B: Tensor, generator: Generator) -> Tensor:  # noqa: ARG002
        """The batch [B, *input] as a step of adaptation sees it; batched, and random by `generator` alone."""
        return x_B
