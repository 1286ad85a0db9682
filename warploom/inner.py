"""The inner loop: SGD on the adaptable parameters of T tasks at once.

Shape suffixes: T tasks, S support, B batch. θ adaptable parameters, φ all others, α the step size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.func import grad_and_value

from warploom.functional import expand, loss, over_tasks
from warploom.models.base import Model
from warploom.seeding import generator
from warploom.types import Tensors

Augment = Callable[[Tensor, Generator], Tensor]


class SupportBatches:
    """An endless supply of support batches for T tasks.

    Each task draws from a generator of its own, so that what it sees does not depend on its neighbours.

    Args:
        x_TS: [T, S, *input].
        y_TS: [T, S] or [T, S, outputs].
        size: examples in a batch, drawn without replacement within it; None for all of them, in order.
        augment: applied to the examples of one task's batch.
        seeds: one per task.
    """

    def __init__(self, x_TS: Tensor, y_TS: Tensor, *, size: int | None, augment: Augment, seeds: Sequence[int]) -> None:
        self._x, self._y = x_TS, y_TS
        self._size = None if size is None or size >= x_TS.shape[1] else size
        self._augment = augment
        self._generators = [generator(seed, "batches") for seed in seeds]

    def next(self) -> tuple[Tensor, Tensor]:
        """One batch for each task: x [T, B, *input], y [T, B, ...]."""
        drawn = [self._draw(t, gen, self._size) for t, gen in enumerate(self._generators)]
        return torch.stack([x for x, _ in drawn]), torch.stack([y for _, y in drawn])

    def everything(self) -> Tensor:
        """All support inputs as a step would see them, [T, S, *input]."""
        return torch.stack([self._draw(t, gen, None)[0] for t, gen in enumerate(self._generators)])

    def _draw(self, t: int, gen: Generator, size: int | None) -> tuple[Tensor, Tensor]:
        x, y = self._x[t], self._y[t]
        if size is not None:
            chosen = torch.randperm(x.shape[0], generator=gen)[:size].to(x.device)
            x, y = x[chosen], y[chosen]
        return self._augment(x, gen), y


@dataclass(frozen=True, slots=True)
class InnerStep:
    """The state before step k, and what was computed there.

    Args:
        k: number of steps taken so far.
        theta_T: θ_k, each [T, *shape].
        gradient_T: ∇L_task(θ_k), each [T, *shape]; empty at the end of the path.
        loss_T: L_task(θ_k) on the step's batch, [T].
    """

    k: int
    theta_T: Tensors
    gradient_T: Tensors
    loss_T: Tensor


def descend(
    model: Model,
    theta: Mapping[str, Tensor],
    phi: Mapping[str, Tensor],
    batches: SupportBatches,
    *,
    steps: int,
    lr: float | Sequence[float],
    stats: Mapping[str, Tensor],
    tasks: int,
    vectorise: bool,
) -> Iterator[InnerStep]:
    """θ_{k+1} = θ_k − α ∇L_task(θ_k; φ), from one θ_0 for all tasks.

    Yields `steps + 1` states: each before its step, and the last with its loss on one more batch.

    Args:
        theta: θ_0 by name; phi: φ by name.
        steps: K, the same for all tasks; 0 gives the starting point alone.
        lr: α, one for all or one per task.
        stats: fixed statistics for batch normalisation; empty to normalise by each batch.
        tasks: T.
        vectorise: see `warploom.functional.over_tasks`.
    """
    current = expand(theta, tasks)
    names = list(current)
    rates_T = torch.as_tensor([lr] * tasks if isinstance(lr, int | float) else list(lr), dtype=torch.float64)

    def task_loss(theta_: Tensors, x_B: Tensor, y_B: Tensor) -> Tensor:
        return loss(model, {**phi, **theta_}, x_B, y_B, stats)

    for k in range(steps):
        x_TB, y_TB = batches.next()
        gradient, value_T = over_tasks(grad_and_value(task_loss), current, x_TB, y_TB, vectorise=vectorise)
        yield InnerStep(k, current, gradient, value_T)
        current = {name: _move(current[name], rates_T, gradient[name]) for name in names}
    x_TB, y_TB = batches.next()
    with torch.no_grad():
        last_T = over_tasks(task_loss, current, x_TB, y_TB, vectorise=vectorise)
    yield InnerStep(steps, current, {}, last_T)


def _move(theta_T: Tensor, rates_T: Tensor, gradient_T: Tensor) -> Tensor:
    shape = (-1,) + (1,) * (theta_T.ndim - 1)
    return theta_T - rates_T.to(theta_T).view(shape) * gradient_T
