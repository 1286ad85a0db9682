"""The meta-objective of WarpGrad at one point of a task's path, and its gradient in closed form.

Symbols: θ adaptable parameters, s the state of the inner optimiser, ψ what the objective teaches: the warp parameters φ
and, if they are learned, the rates of the inner step; U the inner step. At a point (θ, s)

    L(ψ) = L_meta(U(θ, ∇θ L_task(θ; φ), s; ψ); φ)                         (Eq 11; there U = θ − α∇θ L_task)

so that φ counts twice: in the inner gradient and in the outer loss. With θ' = U(…), v = ∇θ' L_meta(θ'; φ) and
u = v ∂U/∂(∇θ L_task),

    ∇ψ L = ∂ψ L_meta(θ'; φ) + v ∂U/∂ψ + ∂ψ ⟨∇θ L_task(θ; φ), u⟩,

two gradients and one mixed second derivative, without a graph of the outer loss through the inner step. For plain
gradient descent u = −αv. Eq 12 is the first term alone; the authors' approximation is ∂φ L_meta(θ; φ), without a step.

Source: Flennerhag et al., ICLR 2020, arXiv:1909.00025. Shape suffixes: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from warploom.algorithms.configs.warpgrad import Form
from warploom.inner import InnerLoop
from warploom.types import Tensors

Batches = tuple[Tensor, Tensor, Tensor, Tensor]
Step = tuple[Tensors, Tensor, Tensors, Tensors]
Visit = tuple[Tensors, Tensors, Tensor, Tensors, Tensors]


class Objective:
    """Eq 11, Eq 12 or the form without a step, for one task at a time: goes under `warploom.functional.over_tasks`.

    Args:
        inner: what a step is, and the task's loss.
        rest: the meta-parameters that are not in ψ.
        lr: α, a scalar tensor.
        stats: fixed statistics for batch normalisation; empty to normalise by each batch.
        form: which form of the gradient.
        plain: whether the step is θ − α∇θ L_task, up to what does not depend on the gradient; then u = −αv without
            differentiating the step, which saves a few percent of the time.
    """

    def __init__(
        self,
        inner: InnerLoop,
        rest: Mapping[str, Tensor],
        *,
        lr: Tensor,
        stats: Mapping[str, Tensor],
        form: Form = "exact",
        plain: bool = False,
    ) -> None:
        self._inner, self._rest, self._lr, self._stats = inner, dict(rest), lr, stats
        self._form, self._plain = form, plain

    def gradient(self, psi: Tensors, theta: Tensors, state: Tensors, *batches: Tensor) -> Tensors:
        """∇ψ at the point (θ, s).

        Args:
            psi: ψ by name.
            theta: θ by name.
            state: s by name; it counts the steps itself where the optimiser needs them.
            batches: x and y of the inner batch, x and y of the outer batch, each [B, ...].
        """
        x_A, y_A, x_B, y_B = batches
        if self._form == "no-step":
            return self._direct(psi, theta, x_B, y_B)
        return self.visit(psi, theta, state, x_A, y_A, x_B, y_B, k=0)[0]

    def visit(self, psi: Tensors, theta: Tensors, state: Tensors, *batches: Tensor, k: int) -> Visit:
        """∇ψ at the point (θ, s), and the inner step from there on the same inner batch.

        Args:
            psi, theta, state, batches: as for `gradient`.
            k: inner steps before this one.

        Returns:
            ∇ψ L, ∇θ L_task(θ), L_task(θ), θ' and s'.
        """
        x_A, y_A, x_B, y_B = batches
        if self._form != "exact":
            slope, value, after, state_after = self.step(psi, theta, state, x_A, y_A, k=k)
            at = after if self._form == "eq12" else theta
            return self._direct(psi, at, x_B, y_B), slope, value, after, state_after
        slope, pull, *aux = vjp(lambda psi: self._slope(psi, theta, x_A, y_A), psi, has_aux=True)
        if self._plain:
            after, state_after = self._move(psi, k, theta, slope, state)
            direct, down = grad(self.loss, argnums=(0, 1))(psi, after, x_B, y_B)
            (mixed,) = pull({n: -self._lr * v for n, v in down.items()})
            return {n: direct[n] + mixed[n] for n in psi}, slope, aux[0], after, state_after
        after, push, *later = vjp(lambda psi, slope: self._move(psi, k, theta, slope, state), psi, slope, has_aux=True)
        direct, down = grad(self.loss, argnums=(0, 1))(psi, after, x_B, y_B)
        rates, u = push(down)
        (mixed,) = pull(u)
        return {n: direct[n] + rates[n] + mixed[n] for n in psi}, slope, aux[0], after, later[0]

    def step(self, psi: Tensors, theta: Tensors, state: Tensors, x_A: Tensor, y_A: Tensor, *, k: int) -> Step:
        """The inner step alone: ∇θ L_task(θ), L_task(θ), θ' and s'."""
        slope, value = self._slope(psi, theta, x_A, y_A)
        return slope, value, *self._move(psi, k, theta, slope, state)

    def loss(self, psi: Tensors, theta: Tensors, x_B: Tensor, y_B: Tensor) -> Tensor:
        """The loss of a batch, as L_task and L_meta both have it."""
        return self._inner.support_loss({**self._rest, **psi}, theta, x_B, y_B, self._stats)

    def _direct(self, psi: Tensors, theta: Tensors, x_B: Tensor, y_B: Tensor) -> Tensors:
        found: Tensors = grad(self.loss)(psi, theta, x_B, y_B)
        return found

    def _slope(self, psi: Tensors, theta: Tensors, x_A: Tensor, y_A: Tensor) -> tuple[Tensors, Tensor]:
        slope: Tensors
        value: Tensor
        slope, value = grad_and_value(self.loss, argnums=1)(psi, theta, x_A, y_A)
        return slope, value

    def _move(self, psi: Tensors, k: int, theta: Tensors, slope: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return self._inner.inner_step({**self._rest, **psi}, k, theta, slope, state, self._lr)
