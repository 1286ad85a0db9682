"""The inner loop: T tasks that adapt at once, either step by step or as one differentiable path.

What an algorithm does to a task (where it starts, its loss, its step) is an `InnerLoop`; here is what walks along it.
Shape suffixes: T tasks, S support, B batch, K steps. θ adaptable parameters, "learned" all meta-parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.func import grad_and_value

from warploom.functional import expand, over_tasks
from warploom.seeding import generator
from warploom.types import Tensors

Augment = Callable[[Tensor, Generator], Tensor]
# Statistics of batch normalisation: the same at every step, or by the number of steps taken.
Stats = Mapping[str, Tensor] | Callable[[int], Mapping[str, Tensor]]
# θ, ∇L(θ), x_B, y_B of one task → a direction, by the names of θ.
Precondition = Callable[[Tensors, Tensors, Tensor, Tensor], Tensors]


class SupportBatches:
    """An endless supply of support batches for T tasks.

    Each task draws from a generator of its own, so that what it sees does not depend on its neighbours.

    Args:
        x_TS: [T, S, *input].
        y_TS: [T, S] or [T, S, outputs].
        size: examples in a batch, drawn without replacement within it; None for all of them, in order.
        augment: applied to the examples of one task's batch.
        seeds: one per task.
        phases: sub-tasks that follow each other. The support set holds them in order, in equal parts; the batch of
            step k comes from the part that is on then.
        steps: K; needed with more than one phase.
        first: the step of the first batch.
    """

    def __init__(
        self,
        x_TS: Tensor,
        y_TS: Tensor,
        *,
        size: int | None,
        augment: Augment,
        seeds: Sequence[int],
        phases: int = 1,
        steps: int = 1,
        first: int = 0,
    ) -> None:
        self._x, self._y = x_TS, y_TS
        self._phases, self._steps = phases, max(steps, 1)
        self._size = size
        self._augment = augment
        self._generators = [generator(seed, "batches") for seed in seeds]
        self._k = first

    def phase(self, k: int) -> int:
        """The sub-task that is on at step k; the state after the last step belongs to the last."""
        return min(k * self._phases // self._steps, self._phases - 1)

    def next(self) -> tuple[Tensor, Tensor]:
        """One batch for each task, of the sub-task that is on: x [T, B, *input], y [T, B, ...]."""
        part = self._x.shape[1] // self._phases
        start = self.phase(self._k) * part
        stop = self._x.shape[1] if self._phases == 1 else start + part
        self._k += 1
        return self._batch(start, stop)

    def seen(self, k: int) -> tuple[Tensor, Tensor]:
        """One batch for each task, of all sub-tasks up to the one at step k."""
        part = self._x.shape[1] // self._phases
        return self._batch(0, self._x.shape[1] if self._phases == 1 else (self.phase(k) + 1) * part)

    def ahead(self, steps: int) -> tuple[Tensor, Tensor]:
        """The batches of the next K steps: x [T, K, B, *input], y [T, K, B, ...]."""
        drawn = [self.next() for _ in range(steps)]
        return torch.stack([x for x, _ in drawn], 1), torch.stack([y for _, y in drawn], 1)

    def everything(self) -> Tensor:
        """All support inputs as a step would see them, [T, S, *input]."""
        return torch.stack([self._draw(t, gen, None, 0, self._x.shape[1])[0] for t, gen in enumerate(self._generators)])

    def _batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        drawn = [self._draw(t, gen, self._size, start, stop) for t, gen in enumerate(self._generators)]
        return torch.stack([x for x, _ in drawn]), torch.stack([y for _, y in drawn])

    def _draw(self, t: int, gen: Generator, size: int | None, start: int, stop: int) -> tuple[Tensor, Tensor]:
        x, y = self._x[t, start:stop], self._y[t, start:stop]
        if size is not None and size < x.shape[0]:
            chosen = torch.randperm(x.shape[0], generator=gen)[:size].to(x.device)
            x, y = x[chosen], y[chosen]
        return self._augment(x, gen), y


class InnerLoop(Protocol):
    """What one task goes through. All of it for one task, in pure functions of `learned`."""

    def start(self, learned: Tensors) -> Tensors:
        """θ_0, by name."""
        ...

    def support_loss(
        self, learned: Tensors, theta: Tensors, x_B: Tensor, y_B: Tensor, stats: Mapping[str, Tensor]
    ) -> Tensor:
        """L_task(θ), the scalar that adaptation descends."""
        ...

    def inner_state(self, learned: Tensors, theta: Tensors) -> Tensors:
        """The state of the inner optimiser before the first step."""
        ...

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        """θ_{k+1} and the next state."""
        ...


@dataclass(frozen=True, slots=True)
class InnerStep:
    """The state before step k, and what was computed there.

    Args:
        k: number of steps taken so far.
        theta_T: θ_k, each [T, *shape].
        gradient_T: ∇L_task(θ_k), each [T, *shape]; empty at the end of the path.
        loss_T: L_task(θ_k) on the step's batch, [T].
        state_T: the inner optimiser's state before the step, each [T, ...]; may be empty.
    """

    k: int
    theta_T: Tensors
    gradient_T: Tensors
    loss_T: Tensor
    state_T: Tensors = field(default_factory=dict)


def descend(
    inner: InnerLoop,
    learned: Tensors,
    batches: SupportBatches,
    *,
    steps: int,
    lr: float | Sequence[float],
    stats: Stats,
    tasks: int,
    vectorise: bool,
    start_T: Tensors | None = None,
    precondition: Precondition | None = None,
) -> Iterator[InnerStep]:
    """θ_{k+1} = step(θ_k, ∇L_task(θ_k)), from one θ_0 for all tasks; no derivative flows along the path.

    Yields `steps + 1` states: each before its step, and the last with its loss on one more batch.

    Args:
        inner: what a step is.
        learned: the meta-parameters.
        steps: K, the same for all tasks; 0 gives the starting point alone.
        lr: α, one for all or one per task.
        stats: fixed statistics for batch normalisation, or those of each step; empty to normalise by each batch.
        tasks: T.
        vectorise: see `warploom.functional.over_tasks`.
        start_T: a θ_0 for each task, [T, *shape], in place of the one for all.
        precondition: what the inner optimiser gets in place of the gradient; not under a vectorised call.
    """
    theta = inner.start(learned)
    current, state = start_T or expand(theta, tasks), expand(inner.inner_state(learned, theta), tasks)
    like = next(iter(theta.values()))
    rates_T = torch.as_tensor([lr] * tasks if isinstance(lr, int | float) else list(lr), dtype=torch.float64).to(like)

    for k in range(steps):

        def one(
            theta: Tensors, state: Tensors, rate: Tensor, x_B: Tensor, y_B: Tensor, k: int = k
        ) -> tuple[Tensors, Tensors, Tensors, Tensor]:
            with torch.no_grad():
                gradient, value = grad_and_value(lambda own: inner.support_loss(learned, own, x_B, y_B, _at(stats, k)))(
                    theta
                )
                along = precondition(theta, gradient, x_B, y_B) if precondition else gradient
                moved, after = inner.inner_step(learned, k, theta, along, state, rate)
            return gradient, value, moved, after  # type: ignore[return-value]

        x_TB, y_TB = batches.next()
        gradient, value_T, moved, after = over_tasks(one, current, state, rates_T, x_TB, y_TB, vectorise=vectorise)
        yield InnerStep(k, current, gradient, value_T, state)
        current, state = moved, after
    x_TB, y_TB = batches.next()
    with torch.no_grad():
        last_T = over_tasks(
            lambda own, x_B, y_B: inner.support_loss(learned, own, x_B, y_B, _at(stats, steps)),
            current,
            x_TB,
            y_TB,
            vectorise=vectorise,
        )
    yield InnerStep(steps, current, {}, last_T, state)


def unroll(
    inner: InnerLoop,
    learned: Tensors,
    x_KB: Tensor,
    y_KB: Tensor,
    *,
    lr: Tensor,
    stats: Stats,
    first_order: bool = False,
    cut: int = 0,
) -> Iterator[tuple[Tensors, Tensor]]:
    """The path of one task as a differentiable function of `learned`; for use inside a transform over tasks.

    Args:
        inner: what a step is.
        learned: the meta-parameters; derivatives flow into them along the path.
        x_KB, y_KB: the batch of each step, [K, B, *input] and [K, B, ...].
        lr: α, a scalar tensor.
        stats: fixed statistics for batch normalisation, or those of each step; empty to normalise by each batch.
        first_order: take each gradient as a constant.
        cut: truncation: through the first `cut` steps the derivative with respect to θ_0 counts as the identity and
            all others as zero, so that `cut` = K leaves the first-order gradient.

    Yields:
        θ_k and L_task(θ_{k−1}) for k = 1..K.
    """
    first = theta = inner.start(learned)
    state = inner.inner_state(learned, theta)
    still = {name: value.detach() for name, value in learned.items()}

    for k in range(x_KB.shape[0]):
        constant = first_order or k < cut
        at = {name: value.detach() for name, value in theta.items()} if constant else theta
        known = still if constant else learned

        def task_loss(own: Tensors, k: int = k, known: Tensors = known) -> Tensor:
            return inner.support_loss(known, own, x_KB[k], y_KB[k], _at(stats, k))

        gradient, value = grad_and_value(task_loss)(at)
        theta, state = inner.inner_step(learned, k, theta, gradient, state, lr)
        if k < cut:
            theta = {name: first[name] + (v - first[name]).detach() for name, v in theta.items()}
            state = {name: v.detach() for name, v in state.items()}
        yield theta, value


def _at(stats: Stats, k: int) -> Mapping[str, Tensor]:
    return stats(k) if callable(stats) else stats
