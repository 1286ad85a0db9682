"""WarpGrad: warp layers that shape the gradient, meta-learned without backpropagating through adaptation.

Symbols: θ adaptable parameters, φ warp parameters, α inner and β outer step size, θ_k the k-th state of a task's
path, s_k the state of the inner optimiser there. Source: Flennerhag et al., ICLR 2020, arXiv:1909.00025, Algorithm 2;
equation numbers are that paper's. The objective: `warploom.algorithms.warpgrad_objective`.

Departures, all on purpose:
* A stored point is θ_k, and s_k if the optimiser has a state. The authors' code stores running statistics of batch
  normalisation with it; here layers normalise by the batch while a task adapts, so that there are none to store.
* Eq 11 has its second-order term, and Eq 12 is evaluated after the inner step, as in the paper. In the authors' code
  the inner gradient loses its graph, so that its default is Eq 12 (`approximate` eq12), and its approximation takes no
  inner step (`approximate` no-step); on the same parameters and batches those two agree with ours to round-off.
* The path's last segment counts: its loss is measured on one more batch. The authors' code drops it.
* Points whose numbers are not finite are left out with all that follow them on the path.
* The mean over points is taken where the paper has a sum: the factor belongs to β.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from warploom.algorithms.base import mean_gradient
from warploom.algorithms.configs.warpgrad import WarpGradConfig
from warploom.algorithms.warped import Start, WarpedAndStart, maml_gradients
from warploom.algorithms.warpgrad_objective import Batches
from warploom.functional import over_tasks
from warploom.inner import InnerStep, SupportBatches
from warploom.models.base import Model
from warploom.seeding import derive, generator
from warploom.tasks.base import TaskFamily
from warploom.types import Experience, Gradient, MetaState, TaskRef, Tasks, Tensors

TASKS_IN_MEMORY = 64
STATE = "state:"


class WarpGrad(WarpedAndStart[WarpGradConfig]):
    """Algorithm 2: collect the paths of a meta-batch of tasks, then learn from their points in random order."""

    def __init__(self, config: WarpGradConfig, model: Model, family: TaskFamily[Any]) -> None:
        super().__init__(config, model, family)
        self._tasks: OrderedDict[TaskRef, Tasks] = OrderedDict()

    def rollout(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> list[Experience]:
        """Adapt, store every `record_every`-th point, and gather the gradient of the initialisation on the way."""
        batches = self._batches(tasks, seeds)
        start = Start(self.config.initialisation)
        kept: list[tuple[int, Tensors]] = []
        first_T = last_T = torch.empty(0)
        theta_T: Tensors = {}
        for step in self._path(meta, tasks, batches, None, None):
            start.add(step)
            if step.k == 0:
                first_T = step.loss_T
            if step.gradient_T and step.k % self.config.record_every == 0:
                kept.append((step.k, _point(step)))
            last_T, theta_T = step.loss_T, step.theta_T
        gradient_T = start.gradient_T
        if self.config.initialisation == "maml":
            gradient_T = maml_gradients(self, meta, tasks, self._batches(tasks, seeds))
        stats: Tensors = {}
        if self.model.bn_mode == "running" and self.model.norms():
            stats = self.task_stats(meta, theta_T, batches.everything())
        finite_PT = [_finite_rows(point_T).expand(tasks.count).tolist() for _, point_T in kept]
        sound_T = (_finite_rows(gradient_T) & _finite_rows(theta_T)).expand(tasks.count).tolist()
        experiences = []
        for t, ref in enumerate(tasks.refs):
            own = [point for point, finite_T in zip(kept, finite_PT, strict=True) if finite_T[t]]
            healthy = sound_T[t] and len(own) == len(kept)
            experiences.append(_experience(meta, ref, t, own, gradient_T, stats, (first_T, last_T), healthy))
        return experiences

    def minibatches(self, experiences: Sequence[Experience], *, seed: int) -> Iterator[list[Experience]]:
        """All stored points (τ, k) in random order without replacement, then one step for the initialisation."""
        where = [(e, p) for e, experience in enumerate(experiences) for p in range(len(experience.steps))]
        order = torch.randperm(len(where), generator=generator(seed, "order")).tolist()
        size = self.config.points_per_update
        for start in range(0, len(order), size):
            yield [_one_point(experiences[e], p) for e, p in (where[i] for i in order[start : start + size])]
        if self.config.initialisation != "none":
            yield [_gradient_only(experience) for experience in experiences]

    def meta_gradient(self, meta: MetaState, experiences: Sequence[Experience], *, seed: int) -> Gradient:
        """The gradient of Eq 11 (or 12) averaged over the points given; without points, that of the ready gradients.

        For each point, two fresh batches of its task's support set: one for the inner step, one for the outer loss.
        """
        device = next(iter(meta.params.values())).device
        points = [(experience, p) for experience in experiences for p in range(len(experience.steps))]
        if not points:
            return mean_gradient(experiences, device)
        groups: dict[tuple[torch.Size, ...], list[tuple[Tensors, Batches]]] = {}
        for experience, p in points:
            batches = self._two_batches(experience.ref, experience.steps[p], seed)
            stored = {name: value[p] for name, value in experience.points.items()}
            groups.setdefault(tuple(b.shape for b in batches), []).append((stored, batches))
        alike = [self._gradients(meta, group, device) for group in groups.values()]
        return Gradient(
            {name: torch.cat([found[name] for found in alike]).mean(0) for name in alike[0]}, float(len(points))
        )

    def _gradients(self, meta: MetaState, points: Sequence[tuple[Tensors, Batches]], device: torch.device) -> Tensors:
        """∇ψ at M points whose batches have equal sizes, each [M, *shape]."""
        stacked_M = {name: torch.stack([stored[name] for stored, _ in points]).to(device) for name in points[0][0]}
        gradient_M: Tensors = over_tasks(
            partial(self.objective(meta).gradient, self.split(meta.params)[0]),
            {name: value for name, value in stacked_M.items() if not name.startswith(STATE)},
            {name.removeprefix(STATE): value for name, value in stacked_M.items() if name.startswith(STATE)},
            *(torch.stack([batches[i] for _, batches in points]).to(device) for i in range(4)),
            vectorise=self._vectorise(next(iter(stacked_M.values()))),
        )
        return gradient_M

    def _two_batches(self, ref: TaskRef, k: int, seed: int) -> Batches:
        """A batch of the sub-task that is on at step k, and one of all sub-tasks up to there."""
        tasks = self._task(ref)
        batches = SupportBatches(
            tasks.support_x,
            tasks.support_y,
            size=self.config.inner_batch,
            augment=self.family.augment,
            seeds=[derive(seed, "point", ref.index, k)],
            phases=self.family.phases,
            steps=self.config.inner_steps,
            first=k,
        )
        x_A, y_A = batches.next()
        x_B, y_B = batches.seen(k)
        return x_A[0], y_A[0], x_B[0], y_B[0]

    def _task(self, ref: TaskRef) -> Tasks:
        """The task's data, made from its name and kept for the points that follow."""
        if ref not in self._tasks:
            self._tasks[ref] = self.family.sample([ref])
            if len(self._tasks) > TASKS_IN_MEMORY:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(ref)
        return self._tasks[ref]


def _point(step: InnerStep) -> Tensors:
    """What is stored of a step, each [T, ...]."""
    return {**step.theta_T, **{STATE + name: value for name, value in step.state_T.items()}}


def _finite_rows(values_T: Mapping[str, Tensor]) -> Tensor:
    """Which tasks have finite numbers only, [T]; all of them when there is nothing to look at."""
    rows = [value.reshape(len(value), -1).isfinite().all(1) for value in values_T.values()]
    return torch.stack(rows).all(0) if rows else torch.tensor(True)


def _experience(
    meta: MetaState,
    ref: TaskRef,
    t: int,
    kept: Sequence[tuple[int, Tensors]],
    gradient_T: Tensors,
    stats_T: Tensors,
    losses: tuple[Tensor, Tensor],
    healthy: bool,
) -> Experience:
    names = kept[0][1] if kept else ()
    return Experience(
        ref=ref,
        version=meta.version,
        steps=tuple(k for k, _ in kept),
        points={name: torch.stack([point_T[name][t].detach() for _, point_T in kept]) for name in names},
        gradient={name: g[t].detach() for name, g in gradient_T.items()} if healthy else {},
        stats={name: s[t].detach() for name, s in stats_T.items()} if healthy else {},
        metrics={
            "support_loss_first": float(losses[0][t]),
            "support_loss": float(losses[1][t]),
            "diverged": float(not healthy),
        },
    )


def _one_point(experience: Experience, p: int) -> Experience:
    points = {name: value[p : p + 1] for name, value in experience.points.items()}
    steps = experience.steps[p : p + 1]
    return Experience(experience.ref, experience.version, steps, points, weight=experience.weight)


def _gradient_only(experience: Experience) -> Experience:
    return Experience(experience.ref, experience.version, gradient=experience.gradient, weight=experience.weight)
