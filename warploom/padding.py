"""Tasks of unequal sizes in one vectorised call: rows that fill up a support set and count for nothing.

A row that was filled in carries a target that marks it: NaN, or the class that cross-entropy ignores. The loss is the
mean over the other rows, so the gradient is that of the task alone, up to round-off. That holds where each row goes
through the net by itself and the loss is a mean over rows; `paddable` says so only where nothing overrides that.
Shape suffixes: T tasks, S support rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from warploom.algorithms.base import Algorithm
from warploom.functional import forward
from warploom.models.base import Model
from warploom.tasks.base import TaskFamily

IGNORED = -100  # the class that torch's cross-entropy leaves out of the mean
_PLAIN = ("adapt", "support_loss", "predict", "_path", "_batches", "_stats")


def paddable(algorithm: Algorithm[Any]) -> bool:
    """Whether a support set may be filled up with rows that count for nothing, and the answer stays the same."""
    family = algorithm.family
    return (
        not algorithm.model.norms()
        and not algorithm.model.convolutional
        and algorithm.config.inner_batch is None
        and family.phases == 1
        and type(family).loss is TaskFamily.loss
        and (type(family).augment is TaskFamily.augment or getattr(family.config, "augment", True) is False)
        and all(getattr(type(algorithm), name) is getattr(Algorithm, name) for name in _PLAIN)
    )


def padded(algorithm: Algorithm[Any]) -> Algorithm[Any]:
    """The same algorithm with a loss that leaves filled-in rows out."""
    twin = copy.copy(algorithm)
    twin.family = _Masked(algorithm.family)  # type: ignore[assignment]
    return twin


def fill(rows: Sequence[Tensor], value: float = 0.0) -> Tensor:
    """Stack tensors [S_t, ...] as [T, max S, ...], the missing rows filled with `value`.

    Example:
        >>> fill([torch.ones(1), torch.ones(2)], value=-100.0).tolist()
        [[1.0, -100.0], [1.0, 1.0]]
    """
    longest = max(len(row) for row in rows)
    return torch.stack([torch.cat([row, row.new_full((longest - len(row), *row.shape[1:]), value)]) for row in rows])


def fill_targets(targets: Sequence[Tensor]) -> Tensor:
    """Stack targets of unequal length; filled-in rows carry the mark."""
    return fill(targets, float("nan") if targets[0].is_floating_point() else IGNORED)


class _Masked:
    """A family as it is, but for the loss."""

    def __init__(self, family: TaskFamily[Any]) -> None:
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def loss(
        self, model: Model, params: Mapping[str, Tensor], x_S: Tensor, y_S: Tensor, stats: Mapping[str, Tensor]
    ) -> Tensor:
        """The mean loss over the rows that are there."""
        outputs_S = forward(model, params, x_S, stats)
        if model.kind == "classification":
            return F.cross_entropy(outputs_S, y_S, ignore_index=IGNORED)
        there = ~y_S.isnan()
        error = torch.where(there, outputs_S - y_S.nan_to_num(), torch.zeros_like(outputs_S))
        return error.square().sum() / there.sum()
