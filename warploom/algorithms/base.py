"""The seam that every algorithm fills: `init`, `adapt`, `rollout`, `meta_gradient`.

Training, evaluation and serving call the same `adapt`, so a served model behaves as the one that was measured. Chance
comes in as seeds, one per task: what happens to a task depends on its own seed alone, and not on which tasks share a
call. Shape suffixes: T tasks, Q query, K inner steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from warploom.algorithms.configs.base import InnerLoopConfig
from warploom.errors import UnfitPair
from warploom.functional import batch_stats, forward, over_tasks, vectorises
from warploom.inner import InnerStep, Precondition, Stats, SupportBatches, descend
from warploom.models.base import Model
from warploom.optim.base import Settings
from warploom.optim.build import build_optimiser
from warploom.outer import Outer
from warploom.tasks.base import TaskFamily
from warploom.types import Adapted, Experience, Gradient, MetaState, Tasks, Tensors

ConfigT = TypeVar("ConfigT", bound=InnerLoopConfig)


class Algorithm(ABC, Generic[ConfigT]):
    """One meta-learner, bound to a model and a task family.

    Raises:
        UnfitPair: the model lacks parameters of a role that the algorithm needs, or the inner optimiser derivatives.
    """

    # Whether it asks the family for its tasks even to adapt to one from elsewhere.
    counts_tasks: ClassVar[bool] = False

    def __init__(self, config: ConfigT, model: Model, family: TaskFamily[Any]) -> None:
        lacking = config.needs - set(model.roles.values())
        if lacking:
            raise UnfitPair(
                f"algorithm {config.name!r} needs parameters of role {', '.join(sorted(lacking))}",
                field="/model",
                rule=f"roles include {', '.join(sorted(config.needs))}",
                value=", ".join(sorted(set(model.roles.values()))),
            )
        reason = config.why_not_through()
        if reason:
            raise UnfitPair(f"algorithm {config.name!r} {reason}", field="/algorithm/inner_optimiser")
        self.config = config
        self.model = model
        self.family = family
        self.adaptable = frozenset(self.adapts())  # to ask `in`; its order differs between processes
        self.optimiser = build_optimiser(config.inner_optimiser)

    # The four methods of the seam.

    def init(self, seed: int) -> MetaState:
        """A fresh `MetaState` of version 0."""
        stats: Tensors = {}
        if self.model.bn_mode == "running":
            for name, layer in self.model.norms().items():
                stats[f"{name}.mean"] = torch.zeros_like(layer.bias.detach())
                stats[f"{name}.var"] = torch.ones_like(layer.bias.detach())
        params = self.model.initial(seed)
        return MetaState(version=0, params=params | self.also_learned(params, seed), stats=stats)

    def adapt(
        self,
        meta: MetaState,
        tasks: Tasks,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
        lr: float | Sequence[float] | None = None,
    ) -> Adapted:
        """T tasks adapted from `meta`.

        Args:
            meta: where adaptation starts, and what it holds fixed.
            tasks: T tasks; only their support sets are looked at.
            seeds: one per task, for batches and augmentation.
            steps: K; default from the config.
            lr: α, one for all or one per task; default from the config.
        """
        batches = self._batches(tasks, seeds, steps)
        losses: list[Tensor] = []
        last: InnerStep | None = None
        for last in self._path(meta, tasks, batches, steps, lr):
            losses.append(last.loss_T.detach())
        assert last is not None
        params = {name: value.detach() for name, value in last.theta_T.items()}
        return Adapted(params, self._stats(meta, params, batches, tasks), torch.stack(losses, dim=1))

    @abstractmethod
    def rollout(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> list[Experience]:
        """What each task teaches: one `Experience` per task, in order."""

    @abstractmethod
    def meta_gradient(self, meta: MetaState, experiences: Sequence[Experience], *, seed: int) -> Gradient:
        """The gradient of the meta-objective over a minibatch of experience."""

    # How the learner uses them.

    def minibatches(self, experiences: Sequence[Experience], *, seed: int) -> Iterator[list[Experience]]:  # noqa: ARG002
        """The minibatches, in order, that the learner takes one outer step for. Default: all at once."""
        yield list(experiences)

    @abstractmethod
    def outer(self, version: int = 0) -> Outer:
        """The outer optimiser with its step sizes, at a version of the meta-state (for schedules)."""

    # What adaptation is made of (`warploom.inner.InnerLoop`); an algorithm overrides what it changes. All are pure
    # functions for one task, so that they go under `torch.func` transforms. `learned` is `MetaState.params`.

    def adapts(self) -> list[str]:
        """The names of the parameters that the inner loop moves."""
        return self.model.names("adapt", "head")

    def also_learned(self, params: Tensors, seed: int) -> Tensors:  # noqa: ARG002
        """Meta-parameters beside the model's own, such as learned step sizes; names with a `:` (`lr:layer0.weight`)."""
        return {}

    def start(self, learned: Tensors) -> Tensors:
        """θ_0."""
        return {name: learned[name] for name in self.model.roles if name in self.adaptable}

    def fixed(self, learned: Tensors) -> Tensors:
        """The model's parameters that the inner loop holds fixed."""
        return {name: learned[name] for name in self.model.roles if name not in self.adaptable}

    def support_loss(
        self, learned: Tensors, theta: Tensors, x_B: Tensor, y_B: Tensor, stats: Mapping[str, Tensor]
    ) -> Tensor:
        """L_task(θ): the family's loss of the model."""
        return self.family.loss(self.model, {**self.fixed(learned), **theta}, x_B, y_B, stats)

    def inner_state(self, learned: Tensors, theta: Tensors) -> Tensors:  # noqa: ARG002
        """The inner optimiser's state before the first step."""
        return self.optimiser.init(theta)

    def inner_settings(self, learned: Tensors, k: int, lr: Tensor) -> Settings:  # noqa: ARG002
        """The inner optimiser's settings at step k."""
        return {**self.optimiser.settings(), "lr": lr}

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        """One step of the inner optimiser."""
        return self.optimiser.step(theta, gradient, state, self.inner_settings(learned, k, lr))

    def outer_loss(
        self,
        learned: Tensors,
        theta: Tensors,
        x_S: Tensor,
        x_Q: Tensor,
        y_Q: Tensor,
        stats: Mapping[str, Tensor],
    ) -> Tensor:
        """The loss of queries as they will be predicted: normalised by the support set's statistics under θ.

        Differentiable in `learned` and θ, the statistics included.
        """
        params = {**self.fixed(learned), **theta}
        if self.model.norms() and self.model.bn_mode == "task":
            stats = batch_stats(self.model, params, x_S)
        return self.family.loss(self.model, params, x_Q, y_Q, stats)

    def predict(self, meta: MetaState, adapted: Adapted, x_TQ: Tensor) -> Tensor:
        """Logits or values [T, Q, outputs] of T adapted models for their queries [T, Q, *input]."""
        fixed = self.fixed(meta.params)

        def one(params: Tensors, stats: Tensors, x_Q: Tensor) -> Tensor:
            return forward(self.model, {**fixed, **params}, x_Q, stats)

        with torch.no_grad():
            if adapted.stats:
                each = (adapted.params, adapted.stats, x_TQ)
                outputs: Tensor = over_tasks(one, *each, vectorise=self._vectorise(x_TQ))
            else:
                alone = lambda params, x_Q: one(params, {}, x_Q)  # noqa: E731
                outputs = over_tasks(alone, adapted.params, x_TQ, vectorise=self._vectorise(x_TQ))
        return outputs

    # Shared parts.

    def _path(
        self,
        meta: MetaState,
        tasks: Tasks,
        batches: SupportBatches,
        steps: int | None,
        lr: float | Sequence[float] | None,
    ) -> Iterator[InnerStep]:
        precondition = self.precondition(meta)
        return descend(
            self,
            meta.params,
            batches,
            steps=self.config.inner_steps if steps is None else steps,
            lr=self.config.inner_lr if lr is None else lr,
            stats=self.path_stats(meta),
            tasks=tasks.count,
            vectorise=precondition is None and self._vectorise(tasks.support_x),
            precondition=precondition,
        )

    def precondition(self, meta: MetaState) -> Precondition | None:  # noqa: ARG002
        """What the inner optimiser gets in place of the gradient; None for the gradient itself."""
        return None

    def given_stats(self, meta: MetaState) -> Tensors:
        """Statistics of batch normalisation that hold while a task adapts: the running ones, or none."""
        return meta.stats if self.model.bn_mode == "running" else {}

    def path_stats(self, meta: MetaState) -> Stats:
        """The same where they may differ from step to step, as `descend` and `unroll` take them."""
        return self.given_stats(meta)

    def _batches(self, tasks: Tasks, seeds: Sequence[int], steps: int | None = None) -> SupportBatches:
        return SupportBatches(
            tasks.support_x,
            tasks.support_y,
            size=self.config.inner_batch,
            augment=self.family.augment,
            seeds=seeds,
            phases=self.family.phases,
            steps=self.config.inner_steps if steps is None else steps,
        )

    def _stats(self, meta: MetaState, params: Tensors, batches: SupportBatches, tasks: Tasks) -> Tensors:
        """Statistics to predict with: the support set's under the adapted parameters, or the running ones."""
        if not self.model.norms() or self.model.bn_mode == "transductive":
            return {}
        if self.model.bn_mode == "running":
            return {name: value.expand(tasks.count, *value.shape) for name, value in meta.stats.items()}
        return self.task_stats(meta, params, batches.everything())

    def task_stats(self, meta: MetaState, params: Tensors, x_TS: Tensor) -> Tensors:
        """Batch statistics of each task's inputs [T, S, *input] under its own parameters."""
        fixed = self.fixed(meta.params)
        with torch.no_grad():
            stats: Tensors = over_tasks(
                lambda own, x_S: batch_stats(self.model, {**fixed, **own}, x_S),
                params,
                x_TS,
                vectorise=self._vectorise(x_TS),
            )
        return stats

    def _vectorise(self, x: Tensor) -> bool:
        return vectorises(self.model, x.device)


def mean_gradient(experiences: Sequence[Experience], device: torch.device) -> Gradient:
    """The mean of the ready gradients that experiences carry."""
    ready = [experience.gradient for experience in experiences if experience.gradient]
    if not ready:
        return Gradient({}, 0.0)
    return Gradient(
        {name: torch.stack([g[name] for g in ready]).mean(0).to(device) for name in ready[0]}, float(len(ready))
    )
