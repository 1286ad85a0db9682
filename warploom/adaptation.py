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
from warploom.functional import vectorises
from warploom.padding import fill, fill_targets, paddable, padded
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

    def numbers(self) -> int:
        """How many numbers its inputs hold."""
        return self.x_S.numel() + self.x_Q.numel()


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
        self.paddable = paddable(algorithm)
        self._padded = padded(algorithm) if self.paddable else algorithm

    @classmethod
    def load(cls, blob: bytes) -> ServedModel:
        """From the bytes of `warploom.codec.pack_model`.

        Raises:
            WireError: the bytes are not a model.
        """
        spec, meta = unpack_model(blob)
        return cls(build(spec, sampling=False), spec, meta)

    def group(self, request: Support) -> tuple[object, ...]:
        """Requests of equal group can be adapted in one call.

        Sizes are equal, or, where filling up changes no answer (`warploom.padding`), within a factor of two.
        """
        sizes = len(request.x_S), len(request.x_Q)
        if self.paddable:
            sizes = sizes[0].bit_length(), sizes[1].bit_length()
        return *sizes, tuple(request.x_S.shape[1:]), tuple(request.y_S.shape[1:]), request.steps

    @property
    def vectorises(self) -> bool:
        """Whether adapting several requests in one call is faster than one after the other."""
        return vectorises(self.algorithm.model, next(iter(self.meta.params.values())).device)

    def adapt(self, requests: Sequence[Support]) -> list[Answer]:
        """Requests of equal `group`, adapted as one batch of tasks.

        Each answer is the one that the request would get alone, up to round-off.
        """
        tasks = _stacked(requests)
        equal = len({len(r.x_S) for r in requests}) == 1
        adapted = (self.algorithm if equal else self._padded).adapt(
            self.meta,
            tasks,
            seeds=[r.seed for r in requests],
            steps=requests[0].steps,
            lr=[r.lr for r in requests],
        )
        support_TS = self.algorithm.predict(self.meta, adapted, tasks.support_x)
        outputs_TQ = self.predict_stacked(adapted, tasks.query_x) if tasks.query_x.shape[1] else None
        nothing = support_TS.new_zeros(0, support_TS.shape[-1])
        return [
            Answer(
                params={name: value[t].clone() for name, value in adapted.params.items()},
                stats={name: value[t].clone() for name, value in adapted.stats.items()},
                losses=adapted.losses_TK[t].tolist(),
                support_accuracy=self._accuracy(support_TS[t, : len(request.y_S)], request.y_S),
                outputs_Q=nothing if outputs_TQ is None else outputs_TQ[t, : len(request.x_Q)],
            )
            for t, request in enumerate(requests)
        ]

    def predict(self, params: Tensors, stats: Tensors, x_Q: Tensor) -> Tensor:
        """Probabilities or values [Q, outputs] of one adapted model."""
        return self.predict_many([(params, stats)], x_Q.unsqueeze(0))[0]

    def predict_many(self, weights: Sequence[tuple[Tensors, Tensors]], x_TQ: Tensor) -> Tensor:
        """Probabilities or values [T, Q, outputs] of T adapted models, each given as parameters and statistics."""
        params, stats = ({name: torch.stack([w[i][name] for w in weights]) for name in weights[0][i]} for i in (0, 1))
        return self.predict_stacked(Adapted(params, stats, torch.zeros(len(weights), 1)), x_TQ)

    def predict_stacked(self, adapted: Adapted, x_TQ: Tensor) -> Tensor:
        """Probabilities or values [T, Q, outputs] of T adapted models."""
        outputs_TQ = self.algorithm.predict(self.meta, adapted, x_TQ)
        return outputs_TQ.softmax(-1) if self.algorithm.model.kind == "classification" else outputs_TQ

    def _accuracy(self, outputs_S: Tensor, y_S: Tensor) -> float | None:
        if self.algorithm.model.kind != "classification":
            return None
        return float((outputs_S.argmax(-1) == y_S).to(torch.float64).mean())


def _stacked(requests: Sequence[Support]) -> Tasks:
    empty_y = requests[0].y_S[:0].expand(0, *requests[0].y_S.shape[1:])
    return Tasks(
        refs=(),
        support_x=fill([r.x_S for r in requests]),
        support_y=fill_targets([r.y_S for r in requests]),
        query_x=fill([r.x_Q for r in requests]),
        query_y=torch.stack([empty_y for _ in requests]),
    )
