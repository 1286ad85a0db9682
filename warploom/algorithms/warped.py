"""What the WarpGrad algorithms have in common: what they learn, their objective, and that of the initialisation.

Symbols: φ warp parameters, ψ all that the warp's objective teaches: φ, and the learned rates of the inner step.
Shape suffixes: T tasks, K inner steps, S support, Q query, B batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.func import grad

from warploom.algorithms.base import Algorithm
from warploom.algorithms.configs.warpgrad import Initialisation, WarpConfig, WarpInitConfig
from warploom.algorithms.leap_path import PathGradient
from warploom.algorithms.warpgrad_objective import Objective
from warploom.functional import over_tasks
from warploom.inner import InnerStep, SupportBatches, unroll
from warploom.optim.base import Setting, Settings
from warploom.optim.sgd import SGD
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors

WarpT = TypeVar("WarpT", bound=WarpConfig)
InitT = TypeVar("InitT", bound=WarpInitConfig)


class Warped(Algorithm[WarpT], Generic[WarpT]):
    """An inner loop whose warp, and if asked its rates, are learned by Eq 11 or an approximation.

    Learned rates are a step size for each tensor, `lr:<param>`, from α on, and a momentum, `momentum:<param>`, where
    the inner optimiser has one. A step size asked of an adaptation scales them all by its ratio to α.
    """

    def also_learned(self, params: Tensors, seed: int) -> Tensors:  # noqa: ARG002
        """The rates, as scalars."""
        start = {**self.optimiser.settings(), "lr": self.config.inner_lr}
        return {
            f"{setting}:{name}": torch.as_tensor(start[setting]).to(params[name])
            for setting in self._learned_settings()
            for name in self.adapts()
        }

    def inner_settings(self, learned: Tensors, k: int, lr: Tensor) -> Settings:
        """Those of the config, and the learned ones in their place."""
        settings: dict[str, Setting] = dict(super().inner_settings(learned, k, lr))
        for setting in self._learned_settings():
            own = {name: learned[f"{setting}:{name}"] for name in self.adapts()}
            scale = lr / self.config.inner_lr
            settings[setting] = {name: value * scale for name, value in own.items()} if setting == "lr" else own
        return settings

    def _learned_settings(self) -> list[str]:
        if not self.config.learn_rates:
            return []
        return ["lr", "momentum"] if self.optimiser.settings().get("momentum") else ["lr"]

    def taught(self) -> dict[str, float]:
        """ψ: the names of what the warp's objective moves, with their outer step sizes."""
        rates = [f"{setting}:{name}" for setting in self._learned_settings() for name in self.adapts()]
        return dict.fromkeys(self.model.names("warp"), self.config.warp_lr) | dict.fromkeys(rates, self.config.rates_lr)

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for the warp, and the step size of the rates."""
        return Outer(self.config.outer, self.taught(), self.config.clip_norm)

    def split(self, learned: Tensors) -> tuple[Tensors, Tensors]:
        """ψ, and the meta-parameters that are not in it."""
        taught = self.taught()
        return {n: learned[n] for n in taught}, {n: v for n, v in learned.items() if n not in taught}

    def objective(self, meta: MetaState) -> Objective:
        """The meta-objective at a point."""
        lr = next(iter(meta.params.values())).new_tensor(self.config.inner_lr)
        rest = self.split(meta.params)[1]
        plain = isinstance(self.optimiser, SGD) and not self.optimiser.config.momentum and not self.config.learn_rates
        return Objective(self, rest, lr=lr, stats=self.given_stats(meta), form=self.config.form, plain=plain)


class WarpedAndStart(Warped[InitT], Generic[InitT]):
    """Learns the initialisation too, by an objective of its own (Eq 13)."""

    def outer(self, version: int = 0) -> Outer:
        """β for the warp and the step size of the rates; λβ for the initialisation if it is learned."""
        outer = super().outer(version)
        if self.config.initialisation == "none":
            return outer
        return replace(outer, rates={**outer.rates, **dict.fromkeys(self.adapts(), self.config.init_lr)})


class Start:
    """The gradient of the initialisation, gathered along the paths of T tasks.

    * `leap`, `leap-simplified`: see `PathGradient`, with and without the loss.
    * `reptile`: θ_0 − θ_K.
    * `maml`: nothing is gathered; see `maml_gradients`.

    Attributes:
        gradient_T: by name, each [T, *shape]; empty for the other objectives.
    """

    def __init__(self, objective: Initialisation) -> None:
        self._objective = objective
        self._path = PathGradient(with_loss=objective == "leap") if objective.startswith("leap") else None
        self._first_T: Tensors = {}
        self.gradient_T: Tensors = {}

    def add(self, step: InnerStep) -> None:
        """The next state of the paths."""
        if self._path is not None:
            self._path.add(step)
            self.gradient_T = self._path.gradient_T
        elif self._objective == "reptile":
            self._first_T = self._first_T or step.theta_T
            self.gradient_T = {name: value - step.theta_T[name] for name, value in self._first_T.items()}


def maml_gradients(algorithm: Algorithm[WarpT], meta: MetaState, tasks: Tasks, batches: SupportBatches) -> Tensors:
    """∇θ0 L_Q(U_K(θ_0)) for each task, through the inner loop, by name, each [T, *shape].

    Args:
        algorithm: says the inner loop.
        meta: the meta-state.
        tasks: T training tasks, queries included.
        batches: fresh, so that the path is the one that the points are from.
    """
    start = {name: meta.params[name] for name in algorithm.adapts()}
    stats = algorithm.given_stats(meta)
    lr = next(iter(start.values())).new_tensor(algorithm.config.inner_lr)
    x_TKB, y_TKB = batches.ahead(algorithm.config.inner_steps)

    def one(x_KB: Tensor, y_KB: Tensor, x_S: Tensor, x_Q: Tensor, y_Q: Tensor) -> Tensors:
        def after(theta: Tensors) -> Tensor:
            learned = {**meta.params, **theta}
            *_, (end, _) = unroll(algorithm, learned, x_KB, y_KB, lr=lr, stats=stats)
            return algorithm.outer_loss(learned, end, x_S, x_Q, y_Q, stats)

        found: Tensors = grad(after)(start)
        return found

    gradients: Tensors = over_tasks(
        one,
        x_TKB,
        y_TKB,
        batches.everything(),
        tasks.query_x,
        tasks.query_y,
        vectorise=algorithm._vectorise(tasks.support_x),
    )
    return gradients
