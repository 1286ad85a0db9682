"""A-MAML: the initialisation, by the adjoint of the gradient flow.

Symbols: u(t) the parameters, du/dt = −∇L_S(u) − μ (u − θ) from u(0) = θ; Euler's method with step h is gradient
descent, with states u_0 … u_n. J = L_Q(u_n) + μ'/2 ‖u_n − θ‖², A_j(u) = ∇²L_j(u) + μ I with L_j the loss of the batch
of step j, λ the adjoint (not iMAML's λ), from λ_n = ∂J/∂u_n back:

    Euler   λ_j = λ_{j+1} − h A_j(u_j) λ_{j+1}
    Heun    λ̃_j = λ_{j+1} − h A_j(u_{j+1}) λ_{j+1},   λ_j = λ_{j+1} − h/2 [A_j(u_{j+1}) λ_{j+1} + A_j(u_j) λ̃_j]

(the paper writes +h H with H minus our Hessian). θ is the start and the centre, so

    dJ/dθ = λ_0 + h μ Σ_j λ_{j+1} − μ' (u_n − θ),

for Heun with the mean of λ_{j+1} and λ̃_j in the sum. Parameters that the inner loop holds fixed (a warp) get
∂J/∂φ − h Σ_j ∂_φ ⟨∇L_j(u_j; φ), λ_{j+1}⟩, or the mean of both ends. Shape suffixes: T tasks, B batch.

Euler's is the exact gradient of the steps taken, equal to `maml` up to round-off; Heun's differs by O(h). Memory: the
n + 1 states (and the batches, where they differ from step to step).
Source: Li, Wang, Narayan, Kirby, Zhe, AISTATS 2023, arXiv:2110.08432, and the authors' code for the proximal terms.

Departures: the forward pass is Euler's method and not a Runge-Kutta solver; u is stored and never integrated
backward, which is unstable; the Heun recursion goes over n segments, where the authors' code goes over n + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from warploom.algorithms.configs.a_maml import AMAMLConfig
from warploom.algorithms.linear_solve import along
from warploom.algorithms.proximal import Proximal
from warploom.algorithms.ready import Ready
from warploom.functional import over_tasks
from warploom.inner import SupportBatches
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors

Batch = tuple[Tensor, Tensor]


class AMAML(Ready[AMAMLConfig]):
    """The discrete adjoint of gradient descent, from stored states and Hessian-vector products."""

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        """u − h (∇L + μ (u − θ)); the losses that are shown are those of L alone."""
        if self.config.proximal:
            gradient = along(gradient, 1.0, self._near(learned, self.config.proximal).slope(theta))
        return super().inner_step(learned, k, theta, gradient, state, lr)

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """dJ/dθ for each task, and dJ/dφ for what the inner loop holds fixed."""
        batches = _Kept(self._batches(tasks, seeds))
        states, losses = [], []
        for step in self._path(meta, tasks, batches, None, None):
            states.append(step.theta_T)
            losses.append(step.loss_T)
        with torch.no_grad():
            adjoint, start_T, held_T, query_T = self._end(meta, tasks, batches.everything(), states[-1])
            for j in range(len(states) - 2, -1, -1):
                adjoint, start_T, held_T = self._back(
                    meta, states[j], states[j + 1], batches.kept[j], (adjoint, start_T, held_T)
                )
            gradient_T = {name: value + start_T[name] for name, value in adjoint.items()} | held_T
        metrics = {"support_loss_first": losses[0], "support_loss": losses[-1], "query_loss": query_T}
        return gradient_T, metrics

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for every meta-parameter."""
        config = self.config
        return Outer(config.outer, dict.fromkeys(self.learns(), config.outer_lr), config.clip_norm)

    def learns(self) -> list[str]:
        """All of the model's parameters but frozen ones."""
        return self.model.names("adapt", "warp", "head")

    def _end(
        self, meta: MetaState, tasks: Tasks, x_TS: Tensor, last_T: Tensors
    ) -> tuple[Tensors, Tensors, Tensors, Tensor]:
        """λ_n, ∂J/∂θ, ∂J/∂φ and L_Q(u_n)."""
        learned, held, stats = meta.params, self._held(meta.params), self.given_stats(meta)
        near = self._near(learned, self.config.outer_proximal)

        def one(u: Tensors, x_S: Tensor, x_Q: Tensor, y_Q: Tensor) -> tuple[Tensors, Tensors, Tensors, Tensor]:
            def queries(own: Tensors, known: Tensors) -> Tensor:
                return self.outer_loss({**learned, **known}, own, x_S, x_Q, y_Q, stats)

            slope, value = grad_and_value(queries)(u, held)
            pulled = near.slope(u)
            direct = grad(queries, argnums=1)(u, held) if held else {}
            return along(slope, 1.0, pulled), {name: -p for name, p in pulled.items()}, direct, value

        ends: tuple[Tensors, Tensors, Tensors, Tensor] = over_tasks(
            one, last_T, x_TS, tasks.query_x, tasks.query_y, vectorise=self._vectorise(tasks.support_x)
        )
        return ends

    def _back(
        self, meta: MetaState, left_T: Tensors, right_T: Tensors, batch: Batch, sums_T: tuple[Tensors, Tensors, Tensors]
    ) -> tuple[Tensors, Tensors, Tensors]:
        """One segment back, from u_{j+1} (right) to u_j (left): λ, and the sums for θ and for φ."""
        learned, held, stats = meta.params, self._held(meta.params), self.given_stats(meta)
        h, mu, heun = self.config.inner_lr, self.config.proximal, self.config.rule == "heun"

        def one(
            left: Tensors, right: Tensors, x_B: Tensor, y_B: Tensor, adjoint: Tensors, start: Tensors, known: Tensors
        ) -> tuple[Tensors, Tensors, Tensors]:
            def product(at: Tensors, v: Tensors) -> tuple[Tensors, Tensors]:
                """A v and ∂_φ ⟨∇L, v⟩ at a state."""

                def slope(own: Tensors, other: Tensors) -> Tensors:
                    loss = grad(lambda o: self.support_loss({**learned, **other}, o, x_B, y_B, stats))
                    found: Tensors = loss(own)
                    return found

                if held:
                    bent, mixed = vjp(slope, at, held)[1](v)
                else:
                    (bent,), mixed = vjp(lambda own: slope(own, {}), at)[1](v), {}
                return along(bent, mu, v) if mu else bent, mixed

            if not heun:
                bent, mixed = product(left, adjoint)
                return along(adjoint, -h, bent), along(start, h * mu, adjoint), along(known, -h, mixed)
            bent_r, mixed_r = product(right, adjoint)
            guess = along(adjoint, -h, bent_r)
            bent_l, mixed_l = product(left, guess)
            return (
                along(along(adjoint, -h / 2, bent_r), -h / 2, bent_l),
                along(along(start, h / 2 * mu, adjoint), h / 2 * mu, guess),
                along(along(known, -h / 2, mixed_r), -h / 2, mixed_l),
            )

        moved: tuple[Tensors, Tensors, Tensors] = over_tasks(
            one, left_T, right_T, *batch, *sums_T, vectorise=self._vectorise(batch[0])
        )
        return moved

    def _near(self, learned: Tensors, weight: float) -> Proximal:
        return Proximal(dict.fromkeys(self.adapts(), weight), self.start(learned))

    def _held(self, learned: Tensors) -> Tensors:
        """What the inner loop holds fixed and the outer loop learns."""
        return {name: value for name, value in self.fixed(learned).items() if name in self.learns()}


class _Kept(SupportBatches):
    """Batches that are kept for the way back; equal ones in a row once."""

    def __init__(self, source: SupportBatches) -> None:
        self._source = source
        self.kept: list[Batch] = []

    def next(self) -> Batch:
        """The next batch of the source."""
        x_TB, y_TB = self._source.next()
        if self.kept and torch.equal(self.kept[-1][0], x_TB) and torch.equal(self.kept[-1][1], y_TB):
            x_TB, y_TB = self.kept[-1]
        self.kept.append((x_TB, y_TB))
        return x_TB, y_TB

    def everything(self) -> Tensor:
        """As the source."""
        return self._source.everything()
