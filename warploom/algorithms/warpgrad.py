"""WarpGrad: warp layers that shape the gradient, meta-learned without backpropagating through adaptation.

Symbols: θ adaptable parameters, φ warp parameters, α inner and β outer step size, θ_k the k-th state of a task's
path. Source: Flennerhag et al., ICLR 2020, arXiv:1909.00025; equation numbers are that paper's.

Departures, all on purpose:
* A stored point is θ_k alone. The authors' code stores running statistics of batch normalisation with it; here
  layers normalise by the batch while a task adapts, so that there are none to store.
* Eq 12 is evaluated after the inner step, as in the paper; the authors' code skips the inner step there.
* The path's last segment counts: its loss is measured on one more batch. The authors' code drops it.
* Points whose numbers are not finite are left out with all that follow them on the path.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import grad, vjp

from warploom.algorithms.base import Algorithm, mean_gradient
from warploom.algorithms.configs.warpgrad import WarpGradConfig
from warploom.functional import loss, over_tasks, vectorises
from warploom.inner import InnerStep, SupportBatches
from warploom.models.base import Model
from warploom.outer import Outer
from warploom.seeding import derive, generator
from warploom.types import Experience, Gradient, MetaState, TaskRef, Tasks, Tensors

TASKS_IN_MEMORY = 64


class WarpGrad(Algorithm[WarpGradConfig]):
    """Algorithm 2: collect the paths of a meta-batch of tasks, then learn from their points in random order."""

    _tasks: OrderedDict[TaskRef, Tasks]

    def rollout(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> list[Experience]:
        """Adapt, store every `record_every`-th θ_k, and gather the gradient of the initialisation on the way."""
        batches = self._batches(tasks, seeds)
        leap = LeapGradient(with_loss=self.config.initialisation == "leap")
        kept: list[InnerStep] = []
        first_T = last_T = torch.empty(0)
        theta_T: Tensors = {}
        for step in self._path(meta, tasks, batches, None, None):
            if self.config.initialisation != "none":
                leap.add(step)
            if step.k == 0:
                first_T = step.loss_T
            if step.gradient_T and step.k % self.config.record_every == 0:
                kept.append(step)
            last_T, theta_T = step.loss_T, step.theta_T
        stats: Tensors = {}
        if self.model.bn_mode == "running" and self.model.norms():
            stats = self.task_stats(meta, theta_T, batches.everything())
        finite_PT = [_finite_rows(step.theta_T).expand(tasks.count).tolist() for step in kept]
        sound_T = _finite_rows({**leap.gradient_T, **theta_T}).expand(tasks.count).tolist()
        experiences = []
        for t, ref in enumerate(tasks.refs):
            own = [step for step, finite_T in zip(kept, finite_PT, strict=True) if finite_T[t]]
            healthy = sound_T[t] and len(own) == len(kept)
            experiences.append(_experience(meta, ref, t, own, leap.gradient_T, stats, (first_T, last_T), healthy))
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
        """∇φ of Eq 11 (or 12) averaged over the points given; without points, the mean of the ready gradients.

        For each point, two fresh batches of its task's support set: one for the inner step, one for the outer loss.
        """
        device = next(iter(meta.params.values())).device
        points = [(experience, p) for experience in experiences for p in range(len(experience.steps))]
        if not points:
            return mean_gradient(experiences, device)
        drawn = [self._two_batches(experience.ref, experience.steps[p], seed) for experience, p in points]
        theta_M = {
            name: torch.stack([experience.points[name][p] for experience, p in points]).to(device)
            for name in points[0][0].points
        }
        gradient_M = warp_gradients(
            self.model,
            theta_M,
            self.fixed(meta.params),
            tuple(torch.stack([batch[i] for batch in drawn]).to(device) for i in range(4)),
            lr=self.config.inner_lr,
            warps=self.model.names("warp"),
            stats=meta.stats,
            approximate=self.config.approximate,
            vectorise=vectorises(self.model, device),
        )
        return Gradient({name: value.mean(0) for name, value in gradient_M.items()}, float(len(points)))

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for the warp, λβ for the initialisation if it is learned."""
        rates = dict.fromkeys(self.model.names("warp"), self.config.warp_lr)
        if self.config.initialisation != "none":
            rates |= dict.fromkeys(self.adaptable, self.config.init_lr)
        return Outer(self.config.outer, rates, self.config.clip_norm)

    def _two_batches(self, ref: TaskRef, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tasks = self._task(ref)
        batches = SupportBatches(
            tasks.support_x,
            tasks.support_y,
            size=self.config.inner_batch,
            augment=self.family.augment,
            seeds=[derive(seed, "point", ref.index, k)],
        )
        x_A, y_A = batches.next()
        x_B, y_B = batches.next()
        return x_A[0], y_A[0], x_B[0], y_B[0]

    def _task(self, ref: TaskRef) -> Tasks:
        """The task's data, made from its name and kept for the points that follow."""
        if not hasattr(self, "_tasks"):
            self._tasks = OrderedDict()
        if ref not in self._tasks:
            self._tasks[ref] = self.family.sample([ref])
            if len(self._tasks) > TASKS_IN_MEMORY:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(ref)
        return self._tasks[ref]


def warp_gradients(
    model: Model,
    theta_M: Tensors,
    fixed: Mapping[str, Tensor],
    batches_M: tuple[Tensor, ...],
    *,
    lr: float,
    warps: Sequence[str],
    stats: Mapping[str, Tensor],
    approximate: bool,
    vectorise: bool,
) -> Tensors:
    """∇φ L_meta(θ − α ∇θ L_task(θ; φ); φ) at M points: Eq 11, with both uses of φ.

    With θ' = θ − α ∇θ L_task(θ; φ) and v = ∇θ' L_meta(θ'; φ) it is

        ∂φ L_meta(θ'; φ) − α ∂φ ⟨∇θ L_task(θ; φ), v⟩,

    two gradients and one mixed second derivative, without a graph of the outer loss through the inner step. Eq 12 is
    the first term alone.

    Args:
        model: the warped net.
        theta_M: the points, each [M, *shape].
        fixed: φ and all else that does not adapt, by name.
        batches_M: x and y of the inner batch, x and y of the outer batch, each [M, B, ...].
        lr: α.
        warps: the names in `fixed` to differentiate.
        stats: fixed statistics for batch normalisation, or empty.
        approximate: Eq 12: stop the gradient at the state after the inner step.
        vectorise: all points in one call, or one after the other.

    Returns:
        Gradients by name, each [M, *shape].
    """
    rest = {name: value for name, value in fixed.items() if name not in warps}

    def task_loss(theta: Tensors, phi: Tensors, x_B: Tensor, y_B: Tensor) -> Tensor:
        return loss(model, {**rest, **phi, **theta}, x_B, y_B, stats)

    def one(theta: Tensors, x_A: Tensor, y_A: Tensor, x_B: Tensor, y_B: Tensor) -> Tensors:
        slope, pull, *_ = vjp(lambda phi: grad(task_loss)(theta, phi, x_A, y_A), warp)
        after = {name: theta[name] - lr * slope[name] for name in theta}
        down: Tensors
        direct: Tensors
        down, direct = grad(task_loss, argnums=(0, 1))(after, warp, x_B, y_B)
        if approximate:
            return direct
        (mixed,) = pull(down)
        return {name: direct[name] - lr * mixed[name] for name in warp}

    warp = {name: fixed[name] for name in warps}
    gradients: Tensors = over_tasks(one, theta_M, *batches_M, vectorise=vectorise)
    return gradients


class LeapGradient:
    """Gradient of the initialisation by the length of the path (Eq 17), gathered step by step.

    ∇C = −Σ_k [ΔL_k ∇L(θ_{k−1}) + Δθ_k] / ‖(Δθ_k, ΔL_k)‖ with ΔL_k replaced by −|ΔL_k| (the stabiliser of the Leap
    paper: a step that went uphill must not pull the initialisation uphill). Without the loss term, as in the authors'
    WarpGrad code: −Σ_k Δθ_k / ‖Δθ_k‖.
    """

    def __init__(self, *, with_loss: bool) -> None:
        self._with_loss = with_loss
        self._previous: InnerStep | None = None
        self.gradient_T: Tensors = {}

    def add(self, step: InnerStep) -> None:
        """The next state of the path."""
        before, self._previous = self._previous, step
        if before is None:
            self.gradient_T = {name: torch.zeros_like(value) for name, value in step.theta_T.items()}
            return
        moved_T = {name: value - before.theta_T[name] for name, value in step.theta_T.items()}
        square_T = torch.stack([m.flatten(1).square().sum(1) for m in moved_T.values()]).sum(0)
        fall_T = torch.zeros_like(square_T)
        if self._with_loss:
            fall_T = -(step.loss_T - before.loss_T).detach().abs()
            square_T = square_T + fall_T.square()
        norm_T = square_T.sqrt().clamp_min(torch.finfo(square_T.dtype).tiny)
        for name, moved in moved_T.items():
            pull = moved + _rows(fall_T, moved) * before.gradient_T[name]
            self.gradient_T[name] = self.gradient_T[name] - pull / _rows(norm_T, moved)


def _rows(value_T: Tensor, like: Tensor) -> Tensor:
    return value_T.view((-1,) + (1,) * (like.ndim - 1))


def _finite_rows(values_T: Mapping[str, Tensor]) -> Tensor:
    """Which tasks have finite numbers only, [T]; all of them when there is nothing to look at."""
    rows = [value.flatten(1).isfinite().all(1) for value in values_T.values()]
    return torch.stack(rows).all(0) if rows else torch.tensor(True)


def _experience(
    meta: MetaState,
    ref: TaskRef,
    t: int,
    kept: Sequence[InnerStep],
    gradient_T: Tensors,
    stats_T: Tensors,
    losses: tuple[Tensor, Tensor],
    healthy: bool,
) -> Experience:
    return Experience(
        ref=ref,
        version=meta.version,
        steps=tuple(step.k for step in kept),
        points={name: torch.stack([step.theta_T[name][t].detach() for step in kept]) for name in _names(kept)},
        gradient={name: g[t].detach() for name, g in gradient_T.items()} if healthy else {},
        stats={name: s[t].detach() for name, s in stats_T.items()} if healthy else {},
        metrics={
            "support_loss_first": float(losses[0][t]),
            "support_loss": float(losses[1][t]),
            "diverged": float(not healthy),
        },
    )


def _names(kept: Sequence[InnerStep]) -> list[str]:
    return list(kept[0].theta_T) if kept else []


def _one_point(experience: Experience, p: int) -> Experience:
    points = {name: value[p : p + 1] for name, value in experience.points.items()}
    return Experience(experience.ref, experience.version, experience.steps[p : p + 1], points)


def _gradient_only(experience: Experience) -> Experience:
    return Experience(experience.ref, experience.version, gradient=experience.gradient)
