"""MAML++: MAML with a loss after every step, annealed derivatives, and rates and norms learned for each step.

Symbols: K inner steps, θ_k the state after k of them, L_Q the loss of the queries, v the version of the meta-state,
α the `inner_lr` of the config, α' the step size that an adaptation asks for, i a parameter tensor.

* Multi-step loss: Σ_k w_k L_Q(θ_k), with w_k = max(1 − v/M, 0.03)/K for k < K, w_K the rest of 1, and from v = M on
  the last alone (M `multi_step_rounds`).
* Derivative-order annealing: while v < `first_order_rounds`, inner gradients count as constants. Learned rates and
  norms keep their derivatives.
* Per-step rates: step k moves tensor i by (α'/α) a_i[k] ∇_i; names `lr:<parameter>`, [K], all α at first.
* Per-step norms: scale and shift of batch normalisation do not adapt; θ_0 has the model's own, θ_k the k-th row of
  `norm:<parameter>`, [K, channels].
* Per-step statistics, where `bn_mode` is running: `MetaState.stats` has a row for each state, [K + 1, channels]; the
  k-th normalises under θ_k, and moves towards the statistics of the support sets under θ_k.
* Cosine schedule: all outer step sizes are scaled by the same factor, from 1 to `outer_lr_min`/`outer_lr`.

An adaptation of more than K steps goes on with what was learned for the last. With every extra off it is `maml`.
Source: Antoniou, Edwards, Storkey, ICLR 2019, arXiv:1810.09502, and the authors' code for the weights w.

Departures: w and the cosine change from round to round, in the authors' code from epoch to epoch. Queries after step k
use the norms of θ_k, there those of the support set before that step. Rows of statistics are used where the model is
told to normalise by running statistics, and with the other two modes there are none to keep.
Shape suffixes: T tasks, S support.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from warploom.algorithms.configs.maml_plus import MAMLPlusConfig
from warploom.algorithms.unrolled import Unrolled
from warploom.inner import Stats
from warploom.optim.base import Settings
from warploom.outer import Outer
from warploom.types import Adapted, MetaState, Tasks, Tensors

RATE, NORM = "lr:", "norm:"
LEAST_SHARE = 0.03


class MAMLPlus(Unrolled[MAMLPlusConfig]):
    """MAML with extras, each of which can be turned off."""

    def init(self, seed: int) -> MetaState:
        """With a row of statistics for each state."""
        meta = super().init(seed)
        if not self.config.per_step_stats:
            return meta
        rows = self.config.inner_steps + 1
        return replace(meta, stats={name: value.repeat(rows, 1) for name, value in meta.stats.items()})

    def adapt(
        self,
        meta: MetaState,
        tasks: Tasks,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
        lr: float | Sequence[float] | None = None,
    ) -> Adapted:
        """See `Algorithm.adapt`; running statistics are those of the last state."""
        adapted = super().adapt(meta, tasks, seeds=seeds, steps=steps, lr=lr)
        if not self._rows_of_stats():
            return adapted
        last = self.stats_after(meta, self.config.inner_steps if steps is None else steps)
        return replace(adapted, stats={name: row.expand(tasks.count, *row.shape) for name, row in last.items()})

    # The objective.

    def weights(self, version: int) -> list[float]:
        """w_1..w_K."""
        steps, rounds = self.config.inner_steps, self.config.multi_step_rounds
        if version >= rounds:
            return super().weights(version)
        share = max(1.0 - version / rounds, LEAST_SHARE) / steps
        return [share] * (steps - 1) + [1.0 - (steps - 1) * share]

    def first_order(self, version: int) -> bool:
        """Whether `version` is before `first_order_rounds`."""
        return version < self.config.first_order_rounds

    # The inner loop.

    def also_learned(self, params: Tensors, seed: int) -> Tensors:  # noqa: ARG002
        """Rates [K] of α, and norms [K, channels] as the model's own."""
        steps, alpha = self.config.inner_steps, self.config.inner_lr
        rates = {f"{RATE}{name}": params[name].new_full((steps,), alpha) for name in self._rated()}
        return rates | {f"{NORM}{name}": params[name].repeat(steps, 1) for name in self._renewed()}

    def inner_settings(self, learned: Tensors, k: int, lr: Tensor) -> Settings:
        """(α'/α) a[k]."""
        plain = super().inner_settings(learned, k, lr)
        if not self.config.per_step_rates:
            return plain
        ratio = lr / self.config.inner_lr
        rates = {name: ratio * learned[f"{RATE}{name}"][self._row(k)] for name in self._rated()}
        return {**plain, "lr": rates | dict.fromkeys(self._renewed(), lr)}

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        """One step, and the norms of the state that it leads to."""
        moved, after = super().inner_step(learned, k, theta, gradient, state, lr)
        return moved | {name: learned[f"{NORM}{name}"][self._row(k)] for name in self._renewed()}, after

    # Statistics of batch normalisation.

    def given_stats(self, meta: MetaState) -> Tensors:
        """Those of θ_0, or none."""
        return self.stats_after(meta, 0)

    def path_stats(self, meta: MetaState) -> Stats:
        """Those of each state, or none."""
        return lambda k: self.stats_after(meta, k)

    def stats_after(self, meta: MetaState, k: int) -> Tensors:
        """Those of θ_k, or none."""
        stats = super().given_stats(meta)
        if not self._rows_of_stats():
            return stats
        return {name: rows[min(k, rows.shape[0] - 1)] for name, rows in stats.items()}

    def seen_stats(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> Tensors:
        """Statistics of the support sets under each state, [T, K + 1, channels], or under the last."""
        if not self._rows_of_stats():
            return super().seen_stats(meta, tasks, seeds=seeds)
        x_TS = self._batches(tasks, seeds).everything()
        path = self._path(meta, tasks, self._batches(tasks, seeds), None, None)
        found = [self.task_stats(meta, step.theta_T, x_TS) for step in path]
        return {name: torch.stack([stats[name] for stats in found], 1) for name in found[0]}

    # The outer loop.

    def learns(self) -> list[str]:
        """The model's parameters, rates and norms."""
        return super().learns() + [RATE + name for name in self._rated()] + [NORM + name for name in self._renewed()]

    def outer(self, version: int = 0) -> Outer:
        """β and the outer step size of the rates, along the cosine."""
        plain, config = super().outer(version), self.config
        factor = 1.0
        if config.cosine_rounds is not None:
            least = config.outer_lr_min / config.outer_lr
            way = min(version / config.cosine_rounds, 1.0)
            factor = least + (1.0 - least) * 0.5 * (1.0 + math.cos(math.pi * way))
        rates = {n: factor * (config.rates_lr if n.startswith(RATE) else rate) for n, rate in plain.rates.items()}
        return Outer(plain.kind, rates, plain.clip_norm)

    def _row(self, k: int) -> int:
        return min(k, self.config.inner_steps - 1)

    def _rows_of_stats(self) -> bool:
        return self.config.per_step_stats and self.model.bn_mode == "running"

    def _renewed(self) -> list[str]:
        """The norms' parameters that would adapt, and are set at each step instead."""
        if not self.config.per_step_norms:
            return []
        own = [f"{layer}.{part}" for layer in self.model.norms() for part in ("weight", "bias")]
        return [name for name in own if name in self.adaptable]

    def _rated(self) -> list[str]:
        """The parameters with rates of their own."""
        if not self.config.per_step_rates:
            return []
        renewed = set(self._renewed())
        return [name for name in self.model.roles if name in self.adaptable and name not in renewed]
