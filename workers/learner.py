"""The meta-learner: alone in an actor, or as a data-parallel worker group of Ray Train."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog
import torch
from torch import Tensor
from torch import distributed as dist

from service.counters import Counters
from warploom.algorithms.base import Algorithm
from warploom.build import build
from warploom.errors import Unavailable
from warploom.guard import job_code
from warploom.learner import LearnerState
from warploom.plan import plan_of
from warploom.records import Progress
from warploom.replay import Replay
from warploom.replay_shares import Shares
from warploom.spec import JobSpec
from warploom.threads import use_threads
from warploom.training import Alone, Group, LearnerLoop, Units
from warploom.types import Gradient, Tensors
from workers import placement
from workers.context import Assignment, JobContext
from workers.joblog import job_log, logged
from workers.saving import Saver, fork, load, recall

log = structlog.get_logger()
REST_S = 1.0  # the longest rest between two looks at the buffer
AWAY_S = 0.5
PROGRESS_S = 1.0
PATIENT_S = 5.0
SHOWN = (
    "support_loss", "support_loss_first", "updates", "learn_s", "seconds", "staleness", "rejected", "dropped",
    "samples_per_insert",
)  # fmt: skip


class LearnerWorker:
    """The learner of a job that has one."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._left = threading.Event()

    @logged(lambda _: "learner")
    def run(self) -> int:
        """All rounds from the last checkpoint on, or until it is asked to leave.

        Returns:
            The version reached.
        """
        return learn(JobContext(self._assignment), Alone(), self._left)

    def leave(self) -> None:
        """Let `run` end after the round it is in, with a checkpoint."""
        self._left.set()


class LearnerGroup:
    """Starts the Ray Train worker group of a job with several learners, and waits for it."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    @logged(lambda _: "learner")
    def run(self) -> int:
        """All rounds from the last checkpoint on.

        Returns:
            The version reached.
        """
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        context = JobContext(self._assignment)
        resources, training = context.spec.resources, context.spec.training
        gpu = placement.available_gpus(resources.learner_gpus) > 0
        trainer = TorchTrainer(
            _train_loop,
            train_loop_config={"assignment": self._assignment},
            scaling_config=ScalingConfig(
                num_workers=training.learners,
                use_gpu=gpu,
                resources_per_worker={"CPU": 1, **({"GPU": resources.learner_gpus} if gpu else {})},
            ),
            run_config=RunConfig(
                name=f"{self._assignment.job_id}-{self._assignment.generation}",
                storage_path=str(context.settings.home.expanduser().resolve() / "train"),
            ),
        )
        trainer.fit()
        return training.rounds

    def leave(self) -> None:
        """A group cannot leave between rounds; it goes on from its last checkpoint."""


def _train_loop(config: dict[str, Any]) -> None:
    group = TorchGroup()
    with job_log(config["assignment"], f"learner-{group.rank}"):
        learn(JobContext(config["assignment"]), group)


def learn(context: JobContext, group: Group, left: threading.Event | None = None) -> int:
    """One learner's whole life: restore, open the buffer, all rounds, or those until `left` is set."""
    spec, leader = context.spec, group.rank == 0
    use_threads(_threads(spec, group.world))
    with job_code("building the model"):
        algorithm = build(spec)
    if leader:
        context.note_versions()
    state = restore(context, algorithm)
    device = "cuda" if spec.resources.learner_gpus > 0 and torch.cuda.is_available() else "cpu"
    state = replace(state, meta=state.meta.to(device))
    replay: Replay = context.replay if group.world == 1 else Patient(context.replay)
    progress, save = _Progress(context), Saver(context)
    loop = LearnerLoop(
        algorithm, spec, replay, state, report=progress.report, checkpoint=save, group=group,
        recall=lambda: recall(context), dropped=lambda: _count_dropped(context),
    )  # fmt: skip
    if leader:
        _check_budget(context, algorithm, state)
    _go(loop, group, left or threading.Event(), context.replay, progress)
    if leader and not loop.done:
        save(loop.state, now=True)
    if leader:
        progress.tell()
        context.tell_all()
    return loop.state.meta.version


def _go(loop: LearnerLoop, group: Group, left: threading.Event, replay: Replay, progress: _Progress) -> None:
    """All rounds, or those until `left` is set. A learner alone waits for a buffer that is away and opens it anew.

    The learners of a group cannot wait each for itself: their run ends, and the next goes on from the checkpoint.
    """
    away = group.world == 1
    if not away:
        loop.start()
    while (away or not loop.done) and not left.is_set():
        try:
            if away:
                loop.reopen()
                progress.resumed()
                away = False
            elif not loop.step() and group.world == 1:
                replay.wait("learner", REST_S)
        except Unavailable as error:
            if group.world > 1:
                raise
            progress.waits(error.message)
            away = True
            time.sleep(AWAY_S)


def _count_dropped(context: JobContext) -> None:
    try:
        Counters(context.connections).add("gradients_dropped")
    except Unavailable as error:
        log.warning("a dropped meta-gradient was not counted", error=error.message)


def _threads(spec: JobSpec, world: int) -> int:
    """Threads of one learner: its share of all cores.

    In async mode rollouts work at the same time, and one core is left to them.
    """
    free = 1 if spec.training.mode == "async" else 0
    return spec.resources.learner_threads or max(1, ((os.cpu_count() or 1) - free) // world)


def restore(context: JobContext, algorithm: Algorithm[Any]) -> LearnerState:
    """The state of the last whole checkpoint, or a fresh one."""
    return load(context) or fork(context, algorithm) or LearnerState(algorithm.init(context.spec.training.seed))


def _check_budget(context: JobContext, algorithm: Algorithm[Any], state: LearnerState) -> None:
    """Refuse at the start a job whose rounds cannot fit into its buffer; the size is that of a first unit's points."""
    if state.meta.version >= context.spec.training.rounds:
        return
    config, meta = algorithm.config, state.meta
    if not hasattr(config, "record_every"):
        return
    per_point = sum(meta.params[name].numel() for name in algorithm.adaptable) * 4
    points = -(-config.inner_steps // config.record_every)
    shares = Shares(plan_of(context.spec), len(context.connections.shards))
    shares.check((points + 1) * per_point * context.spec.training.unit)


class _Progress:
    """Passes events on, and the newest numbers to the job's record at most once a second."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._told = 0.0
        self._away_since: float | None = None
        self._rates: list[float] = []
        self._latest: Progress | None = None

    def waits(self, reason: str) -> None:
        """The replay does not answer or has no room: say so once, in the job's history and its progress."""
        if self._away_since is not None:
            return
        self._away_since = time.monotonic()
        log.warning("the replay is away", error=reason)
        self._context.report("waiting", {"for": "replay", "message": reason})
        self._latest = (self._latest or Progress()).model_copy(update={"waiting": reason})
        self.tell()

    def resumed(self) -> None:
        """It answers again."""
        if self._away_since is None:
            return
        away_s, self._away_since = time.monotonic() - self._away_since, None
        self._context.report("resumed", {"for": "replay", "seconds": away_s})
        self._latest = (self._latest or Progress()).model_copy(update={"waiting": None})
        self.tell()

    def report(self, kind: str, data: dict[str, Any]) -> None:
        self._context.report(kind, data)
        if kind != "round":
            return
        self._rates = [*self._rates[-19:], float(data["seconds"])]
        left = (data["total"] - data["meta_step"]) * sum(self._rates) / len(self._rates)
        self._latest = Progress(
            meta_step=data["meta_step"],
            total=data["total"],
            tasks_done=data["tasks_done"],
            seconds_remaining=left,
            metrics={name: float(data[name]) for name in SHOWN if data.get(name) is not None},
        )
        if time.monotonic() - self._told > PROGRESS_S:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        if self._latest is None:
            return
        owner, settings = self._context.assignment, self._context.settings
        try:
            self._context.jobs.heartbeat(owner.job_id, owner.generation, settings.lease_s, progress=self._latest)
        except Unavailable as error:
            log.warning("the progress was not stored", error=error.message)


class TorchGroup:
    """Learners joined by torch.distributed, as Ray Train sets it up."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def combine(self, gradient: Gradient) -> Tensors:
        """The weighted mean: Σ w_i g_i / Σ w_i.

        A learner without a share contributes nothing, and learns the names and shapes from the others.
        """
        layouts: list[Any] = [None] * self.world
        own = {name: tuple(value.shape) for name, value in gradient.values.items()}
        dist.all_gather_object(layouts, (own, gradient.weight))
        layout: dict[str, tuple[int, ...]] = next((names for names, _ in layouts if names), {})
        total = sum(weight for names, weight in layouts if names)
        if not layout or total == 0:
            return {}
        flat = _flatten(gradient, layout)
        dist.all_reduce(flat)
        return _unflatten(flat / total, layout)

    def share(self, units: Units | None) -> Units | None:
        """What learner 0 took, sent to all."""
        box: list[Any] = [units]
        dist.broadcast_object_list(box, src=0)
        shared: Units | None = box[0]
        return shared


def _flatten(gradient: Gradient, layout: dict[str, tuple[int, ...]]) -> Tensor:
    parts = []
    for name, shape in layout.items():
        value = gradient.values.get(name)
        parts.append(torch.zeros(shape).flatten() if value is None else value.flatten() * gradient.weight)
    return torch.cat(parts)


def _unflatten(flat: Tensor, layout: dict[str, tuple[int, ...]]) -> Tensors:
    values, start = {}, 0
    for name, shape in layout.items():
        size = int(torch.Size(shape).numel())
        values[name] = flat[start : start + size].view(shape)
        start += size
    return values


class Patient:
    """A buffer whose reads wait up to five seconds, so that a group does not talk for each empty look."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replay, name)

    def take_round(self, version: int) -> Units | None:
        """See `Replay.take_round`."""
        return self._wait(lambda: self._replay.take_round(version))

    def sample(self, n: int, seed: int) -> Units | None:
        """See `Replay.sample`."""
        return self._wait(lambda: self._replay.sample(n, seed))

    def _wait(self, read: Callable[[], Units | None]) -> Units | None:
        deadline = time.monotonic() + PATIENT_S
        while True:
            units = read()
            left_s = deadline - time.monotonic()
            if units is not None or left_s <= 0:
                return units
            self._replay.wait("learner", min(left_s, REST_S))
