"""Multi-head training: one trunk for all training tasks with a head for each; a new task gets a fresh head.

Symbols: w the trunk (role adapt), h_n the head of training task n, α the inner and ε the outer step size, n = 1..N.
What one round does: each of its tasks takes K' = `round_steps` steps of SGD on (w, h_n) from the shared state, and

    w ← w + ε mean over tasks (w^(K') − w),    h_n ← h_n + ε mean over the visits of n (h_n^(K') − h_n).

With K' = 1 and ε = 1 this is ordinary SGD on all tasks at once, each head at its own task's full gradient; with more
it is local SGD, which costs a round what Reptile costs it. Adaptation starts from w and the head that the model was
built with, which never moves. Shape suffixes: T tasks.
Source: the fine-tuning baseline of Flennerhag et al., Leap, ICLR 2019, arXiv:1812.01054, appendix.

Departures: tasks of a round run side by side and are averaged; the authors mix their batches into one sequence. A head
needs labels that mean the same at each visit, so a training task is always drawn as at its first visit in stream 0:
the same classes in the same order, where other algorithms here see classes drawn anew. Warp and frozen parameters stay.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from warploom.algorithms.configs.multi_head import MultiHeadConfig
from warploom.algorithms.ready import Ready
from warploom.errors import UnfitPair
from warploom.functional import expand
from warploom.inner import descend
from warploom.models.base import Model
from warploom.outer import Outer
from warploom.seeding import derive
from warploom.tasks.base import TaskFamily
from warploom.types import Experience, MetaState, TaskRef, Tasks, Tensors

MOST_HEADS = 10_000
TASKS_IN_MEMORY = 64


class MultiHead(Ready[MultiHeadConfig]):
    """Heads `head:<n>:<parameter>` beside the model's own.

    Raises:
        UnfitPair: training tasks are not numbered, or too many.
    """

    counts_tasks = True

    def __init__(self, config: MultiHeadConfig, model: Model, family: TaskFamily[Any]) -> None:
        super().__init__(config, model, family)
        count = family.size("train")
        if count is None or count > MOST_HEADS or family.identity(TaskRef("train", 0, 0)) is None:
            raise UnfitPair(
                f"algorithm 'multi-head' {config.unnumbered()}, at most {MOST_HEADS} of them",
                field="/task",
                rule=f"at most {MOST_HEADS} numbered training tasks",
                value=count,
            )
        self._firsts = {family.identity(ref): ref for ref in (TaskRef("train", i, 0) for i in range(count))}
        self._drawn: OrderedDict[int, Tasks] = OrderedDict()
        self._heads = model.names("head")
        self._trunk = model.names("adapt")

    def also_learned(self, params: Tensors, seed: int) -> Tensors:
        """A head for each training task, each drawn like the model's own; that one zero if asked for."""
        found: Tensors = {}
        if self.config.fresh_head == "zero":
            found = {name: torch.zeros_like(params[name]) for name in self._heads}
        for n in range(len(self._firsts)):
            drawn = self.model.initial(derive(seed, "head", n))
            found |= {head_name(n, name): drawn[name] for name in self._heads}
        return found

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """(w, h_n) − (w, h_n)^(K') for each task, the head under the model's own names."""
        config = self.config
        numbers = [self._number(ref) for ref in tasks.refs]
        steps = config.inner_steps if config.round_steps is None else config.round_steps
        own = _joined([self._task(n) for n in numbers]).to(tasks.support_x.device)
        start_T = expand({name: meta.params[name] for name in self._trunk}, tasks.count)
        for name in self._heads:
            start_T[name] = torch.stack([meta.params[head_name(n, name)] for n in numbers])
        losses: list[Tensor] = []
        end_T: Tensors = {}
        for step in descend(
            self,
            meta.params,
            self._batches(own, seeds, steps),
            steps=steps,
            lr=config.inner_lr,
            stats=self.given_stats(meta),
            tasks=tasks.count,
            vectorise=self._vectorise(own.support_x),
            start_T=start_T,
        ):
            end_T = step.theta_T
            losses.append(step.loss_T)
        gradient_T = {name: value - end_T[name] for name, value in start_T.items()}
        return gradient_T, {"support_loss_first": losses[0], "support_loss": losses[-1]}

    def rollout(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> list[Experience]:
        """What each task teaches, with its head under the number of the task."""
        return [
            replace(e, gradient={self._own_name(e.ref, name): value for name, value in e.gradient.items()})
            for e in super().rollout(meta, tasks, seeds=seeds)
        ]

    def minibatches(self, experiences: Sequence[Experience], *, seed: int) -> Iterator[list[Experience]]:  # noqa: ARG002
        """One minibatch, whose plain mean is the mean over tasks for w and the mean over its visits for each h_n.

        Each experience gets all heads of the round, so that learners which share the round agree about names; heads
        of tasks that were not visited are no part of it.
        """
        taught = [experience for experience in experiences if experience.gradient]
        visits = Counter(self._number(experience.ref) for experience in taught)
        heads = [head_name(n, name) for n in sorted(visits) for name in self._heads]
        like = {name: value for experience in taught for name, value in experience.gradient.items()}
        batch = []
        for experience in taught:
            weight = len(taught) / visits[self._number(experience.ref)]
            gradient = {name: experience.gradient[name] for name in self._trunk}
            for name in heads:
                own = experience.gradient.get(name)
                gradient[name] = torch.zeros_like(like[name]) if own is None else weight * own
            batch.append(replace(experience, gradient=gradient))
        yield batch

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """ε for the trunk and for all heads of training tasks."""
        config = self.config
        heads = [head_name(n, name) for n in range(len(self._firsts)) for name in self._heads]
        return Outer(config.outer, dict.fromkeys([*self._trunk, *heads], config.outer_lr), config.clip_norm)

    def _own_name(self, ref: TaskRef, name: str) -> str:
        return head_name(self._number(ref), name) if name in self._heads else name

    def _number(self, ref: TaskRef) -> int:
        number = self.family.identity(ref)
        assert number is not None
        return number

    def _task(self, number: int) -> Tasks:
        if number not in self._drawn:
            self._drawn[number] = self.family.sample([self._firsts[number]])
            if len(self._drawn) > TASKS_IN_MEMORY:
                self._drawn.popitem(last=False)
        return self._drawn[number]


def head_name(number: int, name: str) -> str:
    """The name among the meta-parameters of parameter `name` of the head of a training task."""
    return f"head:{number}:{name}"


def _joined(tasks: Sequence[Tasks]) -> Tasks:
    """Tasks of one each as one stack."""
    return Tasks(
        tuple(ref for task in tasks for ref in task.refs),
        torch.cat([task.support_x for task in tasks]),
        torch.cat([task.support_y for task in tasks]),
        torch.cat([task.query_x for task in tasks]),
        torch.cat([task.query_y for task in tasks]),
    )
