"""WarpGrad for a learner that goes on living: the warp moves every η of its steps, and nothing starts over.

A live learner takes inner steps on θ; at each θ_k the gradient of Eq 11 (or 12) is added up, and after η steps the
warp moves under the learner's feet, φ ← φ − β g_φ, and the sums start again. Memory does not grow with time. A family
of several phases is one stream of them: the batches of the inner steps come from the phase that is on, those of the
outer loss from all phases so far.
Source: Flennerhag et al., ICLR 2020, arXiv:1909.00025, Algorithm 3; for the maze η is 30.

How that lives in rounds: a rollout is K steps of life. It moves its own copy of φ and hands over by how much all told,
as the gradient whose outer step is that move, so with one task to a round the learner's φ is the live one. With
`initialisation` live so are θ and the state of the inner optimiser: the meta-state holds them, the next task goes on
from there, and `adapt` starts where the learner stands.

Departures: with T tasks to a round, T learners live side by side from the same state, and the meta-state becomes the
mean of theirs. The warp also moves as a rollout ends, if η does not divide K. The mean over the points of a stretch is
taken where the paper has a sum: the factor belongs to β. The outer optimiser is plain gradient descent.
Shape suffixes: T tasks, K inner steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from warploom.algorithms.configs.warpgrad_continual import WarpGradContinualConfig
from warploom.algorithms.ready import Ready
from warploom.algorithms.warpgrad_online import LiveWarp, Mean
from warploom.functional import expand
from warploom.inner import InnerStep
from warploom.outer import Outer, OuterState, outer_step
from warploom.types import MetaState, Tasks, Tensors

STATE = "state:"


class WarpGradContinual(Ready[WarpGradContinualConfig], LiveWarp[WarpGradContinualConfig]):
    """Algorithm 3: the moves of the warp along live paths."""

    def also_learned(self, params: Tensors, seed: int) -> Tensors:
        """Learned rates, and the state of the inner optimiser if it lives on."""
        state = self.optimiser.init({name: params[name] for name in self.adapts()}) if self._lives_on else {}
        return super().also_learned(params, seed) | {STATE + name: value for name, value in state.items()}

    def inner_state(self, learned: Tensors, theta: Tensors) -> Tensors:
        """The live one, or a fresh one."""
        if not self._lives_on:
            return super().inner_state(learned, theta)
        return {name.removeprefix(STATE): value for name, value in learned.items() if name.startswith(STATE)}

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """(ψ before − ψ after) / β, and θ and the optimiser's state before − after, for each task."""
        first = self.split(meta.params)[0]
        psi_T = expand(first, tasks.count)
        stretch = Mean()
        losses: list[Tensor] = []
        last: InnerStep | None = None
        for last, gradient_T in self.live(meta, tasks, seeds=seeds, psi_T=psi_T):
            losses = [*losses[:1], last.loss_T]
            if gradient_T:
                stretch.add(gradient_T)
            if stretch.count and (last.k + 1) % self.config.eta == 0:
                psi_T.update(self._moved(psi_T, stretch.take()))
        assert last is not None
        if stretch.count:
            psi_T.update(self._moved(psi_T, stretch.take()))
        gradients_T = {name: (first[name] - psi_T[name]) / rate for name, rate in self.taught().items()}
        if self._lives_on:
            gradients_T |= {name: meta.params[name] - value for name, value in last.theta_T.items()}
            gradients_T |= {STATE + name: meta.params[STATE + name] - v for name, v in last.state_T.items()}
        return gradients_T, {"support_loss_first": losses[0], "support_loss": losses[-1]}

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for the warp and the step size of the rates; what lives on is taken as it is."""
        rates = self.taught()
        if self._lives_on:
            names = self.adapts()
            state = self.optimiser.init({name: torch.empty(()) for name in names})
            rates |= dict.fromkeys([*names, *(STATE + name for name in state)], 1.0)
        return Outer("sgd", rates)

    @property
    def _lives_on(self) -> bool:
        return self.config.initialisation == "live"

    def _moved(self, psi_T: Tensors, gradient_T: Tensors) -> Tensors:
        """Each task's ψ after one outer step of its own."""
        outer = Outer("sgd", self.taught(), self.config.clip_norm)
        count = len(next(iter(psi_T.values())))
        moved = [
            outer_step(
                outer, OuterState(), {n: v[t] for n, v in psi_T.items()}, {n: g[t] for n, g in gradient_T.items()}
            )[0]
            for t in range(count)
        ]
        return {name: torch.stack([own[name] for own in moved]) for name in psi_T}
