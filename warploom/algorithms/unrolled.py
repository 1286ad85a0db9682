"""Backpropagation through the inner loop, for any inner optimiser and any number of steps.

Symbols: ω the meta-parameters, θ_k(ω) the parameters after k inner steps on the support set, L_Q the loss of the
queries, w_k weights. The meta-gradient of a task is

    ∇_ω Σ_k w_k L_Q(θ_k(ω); ω),

with all second-order terms along the path. Memory grows with K.
Shape suffixes: T tasks, K inner steps (or 1, where every step sees the same batch), S support, Q query, B batch.
Source: Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, Algorithm 2, where w is 1 for the last step alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.func import grad_and_value

from warploom.algorithms.configs.maml import OuterConfig, UnrolledConfig
from warploom.algorithms.ready import Ready
from warploom.functional import over_tasks
from warploom.inner import InnerLoop, SupportBatches, unroll
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors

OuterT = TypeVar("OuterT", bound=OuterConfig)
UnrolledT = TypeVar("UnrolledT", bound=UnrolledConfig)


class Initialised(Ready[OuterT], Generic[OuterT]):
    """The base of algorithms that learn the whole net at one outer step size."""

    def learns(self) -> list[str]:
        """The names of the meta-parameters that the outer loop moves: the model's own, but frozen ones."""
        return self.model.names("adapt", "head", "warp")

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for every meta-parameter."""
        config = self.config
        return Outer(config.outer, dict.fromkeys(self.learns(), config.outer_lr), config.clip_norm)

    def normaliser(self, batches: SupportBatches, tasks: Tasks) -> Tensor:
        """The support inputs [T, S, *input] whose statistics normalise the queries; none where nothing asks for them.

        They are drawn, and so augmented, once more, as for the statistics of an adapted model.
        """
        asked = self.model.bn_mode == "task" and self.model.norms()
        return batches.everything() if asked else tasks.support_x[:, :0]


class Unrolled(Initialised[UnrolledT], Generic[UnrolledT]):
    """The base of algorithms that differentiate the queries' loss along the path."""

    def weights(self, version: int) -> list[float]:  # noqa: ARG002
        """w_1..w_K at a version of the meta-state."""
        return [0.0] * (self.config.inner_steps - 1) + [1.0]

    def first_order(self, version: int) -> bool:  # noqa: ARG002
        """Whether inner gradients count as constants at a version of the meta-state."""
        return False

    def path(self, meta: MetaState, learned: Tensors, x_KB: Tensor, y_KB: Tensor) -> Iterator[tuple[Tensors, Tensor]]:
        """θ_k and L_task(θ_{k−1}) for k = 1..K, as functions of `learned`. See `warploom.inner.unroll`.

        Args:
            meta: the meta-state, for what is not differentiated.
            learned: ω.
            x_KB, y_KB: batches of one task, [K or 1, B, ...].
        """
        return self.walk(self, meta, learned, x_KB, y_KB)

    def walk(
        self, inner: InnerLoop, meta: MetaState, learned: Tensors, x_KB: Tensor, y_KB: Tensor
    ) -> Iterator[tuple[Tensors, Tensor]]:
        """The path of `inner`, with this algorithm's settings."""
        steps = self.config.inner_steps
        return unroll(
            inner,
            learned,
            x_KB.expand(steps, *x_KB.shape[1:]),
            y_KB.expand(steps, *y_KB.shape[1:]),
            lr=_number(self.config.inner_lr, learned),
            stats=self.path_stats(meta),
            first_order=self.first_order(meta.version),
            cut=self.config.cut,
        )

    def stats_after(self, meta: MetaState, k: int) -> Tensors:  # noqa: ARG002
        """Statistics of batch normalisation that hold for queries after k steps, or none."""
        return self.given_stats(meta)

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """∇_ω Σ_k w_k L_Q(θ_k(ω); ω) for each task."""
        batches = self._batches(tasks, seeds)
        x_TKB, y_TKB = _without_copies(*batches.ahead(self.config.inner_steps))
        x_TS = self.normaliser(batches, tasks)
        wanted = {name: meta.params[name] for name in self.learns()}
        weights = self.weights(meta.version)

        def one(x_KB: Tensor, y_KB: Tensor, x_S: Tensor, x_Q: Tensor, y_Q: Tensor) -> tuple[Tensors, Tensor, Tensor]:
            def objective(own: Tensors) -> tuple[Tensor, tuple[Tensor, Tensor]]:
                learned = {**meta.params, **own}
                support: list[Tensor] = []
                terms: list[Tensor] = []
                query = torch.empty(0)
                for k, (theta, value) in enumerate(self.path(meta, learned, x_KB, y_KB)):
                    support.append(value)
                    if weights[k]:
                        query = self.outer_loss(learned, theta, x_S, x_Q, y_Q, self.stats_after(meta, k + 1))
                        terms.append(weights[k] * query)
                return torch.stack(terms).sum(), (torch.stack(support), query)

            gradient, (_, (support_K, query)) = grad_and_value(objective, has_aux=True)(wanted)
            return gradient, support_K, query

        gradient_T, losses_TK, query_T = over_tasks(
            one, x_TKB, y_TKB, x_TS, tasks.query_x, tasks.query_y, vectorise=self._vectorise(tasks.support_x)
        )
        metrics = {"support_loss_first": losses_TK[:, 0], "support_loss": losses_TK[:, -1], "query_loss": query_T}
        return gradient_T, metrics


def _number(value: float, like: Tensors) -> Tensor:
    first = next(iter(like.values()))
    return torch.tensor(value, dtype=first.dtype, device=first.device)


def _without_copies(x_TKB: Tensor, y_TKB: Tensor) -> tuple[Tensor, Tensor]:
    """The first batch alone, [T, 1, B, ...], where all steps have the same."""
    alike = all(torch.equal(batch, batch[:, :1].expand_as(batch)) for batch in (x_TKB, y_TKB))
    return (x_TKB[:, :1].clone(), y_TKB[:, :1].clone()) if alike else (x_TKB, y_TKB)
