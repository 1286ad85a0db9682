"""Backpropagation through the inner loop, window by window.

Symbols: ω the meta-parameters, θ_k the parameters after k inner steps, W the steps of a window, S the steps after
which queries count, L_Q their loss. A task's meta-gradient is

    (1/|S|) Σ_{k ∈ S} ∂L_Q(θ_k; ω)/∂ω,

where the derivative follows the path back to the beginning of step k's own window, and takes the state there as a
constant (truncated backpropagation through time). With one window and S = {K} it is that of MAML. Memory grows with W
and not with K. Shape suffixes: T tasks, K steps of a window, S support, Q query, B batch.
Source: Grefenstette et al., 2019, arXiv:1910.01727, Algorithm 1, for any split of ω.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.func import grad_and_value

from warploom.algorithms.configs.windows import WindowConfig
from warploom.algorithms.unrolled import Initialised
from warploom.functional import expand, over_tasks
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors

ConfigT = TypeVar("ConfigT", bound=WindowConfig)


class Windowed(Initialised[ConfigT], Generic[ConfigT]):
    """The base of algorithms that learn something of the inner loop itself beside the initialisation."""

    first_order = False  # take each inner gradient as a constant

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """The sum over windows, for each task."""
        config, steps = self.config, self.config.inner_steps
        width = steps if config.window is None else min(config.window, steps)
        counted = steps if config.loss_at == "every" else -(-steps // width)
        batches = self._batches(tasks, seeds)
        x_TS, stats = self.normaliser(batches, tasks), self.given_stats(meta)
        wanted = {name: meta.params[name] for name in self.learns()}
        theta = self.start(meta.params)
        theta_T, state_T = expand(theta, tasks.count), expand(self.inner_state(meta.params, theta), tasks.count)
        total: Tensors = {}
        losses: list[Tensor] = []
        query_T = torch.empty(0)

        for begin in range(0, steps, width):
            x_TKB, y_TKB = batches.ahead(min(width, steps - begin))

            def one(
                theta: Tensors,
                state: Tensors,
                x_KB: Tensor,
                y_KB: Tensor,
                x_S: Tensor,
                x_Q: Tensor,
                y_Q: Tensor,
                begin: int = begin,
            ) -> tuple[Tensors, Tensors, Tensors, Tensor, Tensor]:
                def objective(own: Tensors) -> tuple[Tensor, tuple[Tensors, Tensors, Tensor, Tensor]]:
                    learned = {**meta.params, **own}
                    at, memory = theta, state
                    if begin == 0:
                        at = self.start(learned)
                        memory = self.inner_state(learned, at)
                    found: list[Tensor] = []
                    support: list[Tensor] = []
                    for j in range(x_KB.shape[0]):
                        at, memory, value = self._step(learned, begin + j, at, memory, x_KB[j], y_KB[j], stats)
                        support.append(value)
                        if config.loss_at == "every" or j == x_KB.shape[0] - 1:
                            found.append(self.outer_loss(learned, at, x_S, x_Q, y_Q, stats))
                    return torch.stack(found).sum() / counted, (at, memory, torch.stack(support), found[-1])

                gradient, (_, (at, memory, support_K, last)) = grad_and_value(objective, has_aux=True)(wanted)
                return gradient, at, memory, support_K, last

            gradient_T, theta_T, state_T, losses_TK, query_T = over_tasks(
                one,
                {name: value.detach() for name, value in theta_T.items()},
                {name: value.detach() for name, value in state_T.items()},
                x_TKB,
                y_TKB,
                x_TS,
                tasks.query_x,
                tasks.query_y,
                vectorise=self._vectorise(tasks.support_x),
            )
            losses += losses_TK.unbind(1)
            total = {name: total[name] + g.detach() if total else g.detach() for name, g in gradient_T.items()}
        return total, {"support_loss_first": losses[0], "support_loss": losses[-1], "query_loss": query_T}

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for the initialisation, and the step size of its own for what is learned beside it."""
        config = self.config
        rates = {name: config.outer_lr if name in self.model.roles else self.extra_lr() for name in self.learns()}
        return Outer(config.outer, rates, config.clip_norm)

    def extra_lr(self) -> float:
        """The outer step size for what is learned beside the initialisation."""
        return self.config.outer_lr

    def extras(self) -> list[str]:
        """The names of what is learned beside the initialisation."""
        return []

    def learns(self) -> list[str]:
        """The names of the meta-parameters that the outer loop moves."""
        return ([] if self.config.initialisation == "fixed" else super().learns()) + self.extras()

    def _step(
        self,
        learned: Tensors,
        k: int,
        theta: Tensors,
        state: Tensors,
        x_B: Tensor,
        y_B: Tensor,
        stats: Tensors,
    ) -> tuple[Tensors, Tensors, Tensor]:
        gradient, value = grad_and_value(lambda own: self.support_loss(learned, own, x_B, y_B, stats))(theta)
        if self.first_order:
            gradient = {name: g.detach() for name, g in gradient.items()}
        lr = next(iter(theta.values())).new_tensor(self.config.inner_lr)
        theta, state = self.inner_step(learned, k, theta, gradient, state, lr)
        return theta, state, value
