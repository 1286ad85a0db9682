"""A trained model that answers adaptation requests, many at once.

Shape suffixes: T requests, S support, Q query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warploom.algorithms.base import Algorithm
from warploom.build import build
from warploom.codec import unpack_model
from warploom.spec import JobSpec
from warploom.types import Adapted, MetaState, Tasks, Tensors


@dataclass(frozen=True)
class Support:
    """One request: labelled examples, and what to predict.

    Args:
        x_S: [S, *input] float32.
        y_S: [S] int64 or [S, outputs] float32.
        x_Q: [Q, *input] float32; Q may be 0.
        steps: inner steps.
        lr: inner step size.
        seed: for batches and augmentation.
    """

    x_S: Tensor
    y_S: Tensor
    x_Q: Tensor
    steps: int
    lr: float
    seed: int

    def shape(self) -> tuple[object, ...]:
        """Requests of equal shape can be adapted in one call."""
        return tuple(self.x_S.shape), tuple(self.y_S.shape), tuple(self.x_Q.shape), self.steps


@dataclass(frozen=True)
class Answer:
    """One adapted model, with what it says.

    Args:
        params, stats: by name, for later predictions.
        losses: support loss before each step and after the last.
        support_accuracy: share of support examples it now labels right; None for regression.
        outputs_Q: [Q, outputs] probabilities or values.
    """

    params: Tensors
    stats: Tensors
    losses: list[float]
    support_accuracy: float | None
    outputs_Q: Tensor


class ServedModel:
    """A model's artefact, ready to adapt; holds no state between calls."""

    def __init__(self, algorithm: Algorithm[Any], spec: JobSpec, meta: MetaState) -> None:
        self.algorithm, self.spec, self.meta = algorithm, spec, meta

    @classmethod
    def load(cls, blob: bytes) -> ServedModel:
        """From the bytes of `warploom.codec.pack_model`.

        Raises:
            WireError: the bytes are not a model.
        """
        spec, meta = unpack_model(blob)
        return cls(build(spec, sampling=False), spec, meta)

    def adapt(self, requests: Sequence[Support]) -> list[Answer]:
        """Requests of equal `shape()`, adapted as one batch of tasks.

        Each answer is the one that the request would get alone, up to round-off.
        """
        first = requests[0]
        empty_y = first.y_S[:0].expand(0, *first.y_S.shape[1:])
        tasks = Tasks(
            refs=(),
            support_x=torch.stack([r.x_S for r in requests]),
            support_y=torch.stack([r.y_S for r in requests]),
            query_x=torch.stack([r.x_Q for r in requests]),
            query_y=torch.stack([empty_y for _ in requests]),
        )
        adapted = self.algorithm.adapt(
            self.meta, tasks, seeds=[r.seed for r in requests], steps=first.steps, lr=[r.lr for r in requests]
        )
        support_TS = self.algorithm.predict(self.meta, adapted, tasks.support_x)
        outputs_TQ = self.predict_stacked(adapted, tasks.query_x) if first.x_Q.shape[0] else None
        return [
            Answer(
                params={name: value[t].clone() for name, value in adapted.params.items()},
                stats={name: value[t].clone() for name, value in adapted.stats.items()},
                losses=adapted.losses_TK[t].tolist(),
                support_accuracy=self._accuracy(support_TS[t], requests[t].y_S),
                outputs_Q=outputs_TQ[t] if outputs_TQ is not None else support_TS.new_zeros(0, support_TS.shape[-1]),
            )
            for t in range(len(requests))
        ]

    def predict(self, params: Tensors, stats: Tensors, x_Q: Tensor) -> Tensor:
        """Probabilities or values [Q, outputs] of one adapted model."""
        adapted = Adapted(
            {name: value.unsqueeze(0) for name, value in params.items()},
            {name: value.unsqueeze(0) for name, value in stats.items()},
            torch.zeros(1, 1),
        )
        return self.predict_stacked(adapted, x_Q.unsqueeze(0))[0]

    def predict_stacked(self, adapted: Adapted, x_TQ: Tensor) -> Tensor:
        """Probabilities or values [T, Q, outputs] of T adapted models."""
        outputs_TQ = self.algorithm.predict(self.meta, adapted, x_TQ)
        return outputs_TQ.softmax(-1) if self.algorithm.model.kind == "classification" else outputs_TQ

    def _accuracy(self, outputs_S: Tensor, y_S: Tensor) -> float | None:
        if self.algorithm.model.kind != "classification":
            return None
        return float((outputs_S.argmax(-1) == y_S).to(torch.float64).mean())
