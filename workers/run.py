"""One run of one job: its actors, their deaths, its end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from service.connection import Connections
from service.events import EventLog
from service.jobs import JobClaim, JobStore, ran_s
from service.settings import Settings
from warploom.errors import (
    DataMissing,
    Fenced,
    InvalidInput,
    RuntimeExceeded,
    TrainingFailed,
    Unavailable,
    WarploomError,
)
from warploom.records import CANCELLED, CANCELLING, FAILED, RUNNING, SUCCEEDED, Failure
from warploom.spec import JobSpec
from workers import placement
from workers.context import Assignment, shipped
from workers.evaluator import Evaluator
from workers.learner import LearnerGroup, LearnerWorker
from workers.rollout import RolloutWorker

log = structlog.get_logger()
LEAVE_S = 10.0  # less than a supervisor waits for its runs when it goes
CRASHES_IN_A_MINUTE = 10
WATCH_S = 0.5


class _Stop(Exception):
    """A pause or a cancel was asked for, or the supervisor is going; the learner has left or had its time."""


class _Retry(Exception):
    """The learner died: start over from the checkpoint, as a new generation."""


@dataclass
class _Part:
    """One actor of the run."""

    role: str
    ident: str
    actor: Any
    future: Any
    restart: Callable[[], _Part] | None = None


@dataclass
class _Crashes:
    """Deaths of replaceable actors; too many in a minute end the run."""

    times: deque[float] = field(default_factory=deque)

    def too_many(self) -> bool:
        now = time.monotonic()
        self.times.append(now)
        while self.times and now - self.times[0] > 60:
            self.times.popleft()
        return len(self.times) > CRASHES_IN_A_MINUTE


class JobRun:
    """Runs a claimed job to its end; made for a thread of its own.

    A dead rollout or evaluator is replaced. A dead learner ends the run: the job goes back into the queue, and its
    next generation goes on from the last checkpoint, which fences every actor of this one.

    Args:
        connections, settings: the service.
        claim: the job and its generation.
        stopping: set when the supervisor shuts down.
    """

    def __init__(
        self, connections: Connections, settings: Settings, claim: JobClaim, stopping: threading.Event
    ) -> None:
        self._jobs, self._events = JobStore(connections), EventLog(connections)
        self._settings, self._stopping = settings, stopping
        self._job_id, self._generation = claim.job.id, claim.generation
        self._spec = JobSpec.parse(claim.job.spec)
        self._assignment = Assignment(
            job_id=claim.job.id,
            name=claim.job.name,
            generation=claim.generation,
            spec=claim.job.spec,
            settings=shipped(settings),
        )
        self._parts: list[_Part] = []
        self._crashes = _Crashes()
        self._phase = "starting"
        self._state = claim.job.state
        self._lost_in_a_row = claim.job.lost_in_a_row
        self._ran_s, self._began = ran_s(claim.job), time.monotonic()
        self._leave_by: float | None = None
        self._beaten = 0.0
        self._log = log.bind(job=claim.job.id, generation=claim.generation)

    def run(self) -> None:
        """Until the job ended, was given back, or belongs to another generation."""
        try:
            self._run()
        except Fenced:
            self._log.warning("replaced by a newer generation")
        except Exception:
            self._log.exception("the run broke; its lease will run out")
        finally:
            self._kill_all()

    def _run(self) -> None:
        try:
            model = self._train()
        except _Stop:
            self._rest()
        except _Retry as reason:
            self._give_back(str(reason), lost=True)
        except Fenced:
            # Another claims the job, or began to and found the lease renewed: then the job is still this run's to give
            # back. If it is not, giving it back is refused as fenced too.
            self._give_back("a claim that was not completed fenced the actors")
        except WarploomError as error:
            self._fail(error)
        else:
            self._jobs.finish(self._job_id, self._generation, SUCCEEDED, model=model)

    def _train(self) -> str:
        """The model's name."""
        self._beat()
        self._check_retries()
        if not self._wanted():
            raise _Stop
        self._start_all()
        while True:
            self._beat()
            self._check_runtime()
            if not self._wanted():
                self._let_leave()
            for future in placement.finished([part.future for part in self._parts], WATCH_S):
                part = next(p for p in self._parts if p.future is future)
                model = self._ended(part)
                if model is not None:
                    return model

    def _wanted(self) -> bool:
        return self._state == RUNNING and not self._stopping.is_set()

    def _let_leave(self) -> None:
        """Ask the learner to save a checkpoint and leave; it has a while, because a round may be long."""
        now = time.monotonic()
        if self._leave_by is None:
            self._leave_by = now + LEAVE_S
            for part in self._parts:
                if part.role == "learner":
                    placement.call(part.actor, "leave")
        if now > self._leave_by:
            raise _Stop

    def _rest(self) -> None:
        self._kill_all()
        if self._state == CANCELLING:
            self._jobs.finish(self._job_id, self._generation, CANCELLED)
        else:
            self._jobs.release(self._job_id, self._generation)

    def _start_all(self) -> None:
        kind = LearnerWorker if self._spec.training.learners == 1 else LearnerGroup
        resources = self._spec.resources
        if max(resources.learner_gpus, resources.rollout_gpus) > 0 and not placement.available_gpus(1.0):
            self._tell("warning", {"message": "the cluster has no GPU; the job runs on CPUs"})
        gpus = resources.learner_gpus if kind is LearnerWorker else 0.0
        self._parts.append(self._start("learner", "learner", kind, 0.0, gpus, max_concurrency=2))
        self._parts.append(self._start_evaluator())
        wanted = self._spec.training.rollouts if self._spec.training.rounds else 0
        self._parts += [self._start_rollout(f"rollout-{i}") for i in range(wanted)]
        self._phase = "training"

    def _start(self, role: str, ident: str, kind: type, cpus: float, gpus: float, *more: Any, **options: Any) -> _Part:
        gpus = placement.available_gpus(gpus)
        actor = placement.start_actor(kind, self._assignment, *more, cpus=cpus, gpus=gpus, **options)
        return _Part(role, ident, actor, placement.call(actor, "run"))

    def _start_evaluator(self) -> _Part:
        part = self._start("evaluator", "evaluator", Evaluator, 0.0, 0.0)
        part.restart = self._start_evaluator
        return part

    def _start_rollout(self, ident: str) -> _Part:
        resources = self._spec.resources
        part = self._start("rollout", ident, RolloutWorker, resources.rollout_cpus, resources.rollout_gpus, ident)
        part.restart = lambda: self._start_rollout(ident)
        return part

    def _ended(self, part: _Part) -> str | None:
        """What an actor's end means: a model's name from the evaluator, else nothing, a restart, or an error."""
        self._parts.remove(part)
        try:
            outcome = placement.result(part.future)
        except placement.ActorLost as error:
            self._lost(part, str(error))
            return None
        if part.role == "learner":
            if outcome < self._spec.training.rounds:
                raise _Stop
            self._phase = "evaluating"
        return str(outcome) if part.role == "evaluator" else None

    def _lost(self, part: _Part, message: str) -> None:
        self._log.warning("actor lost", role=part.role, ident=part.ident, reason=message)
        self._tell("worker_lost", {"role": part.role, "ident": part.ident, "message": message})
        if part.restart is None:
            raise _Retry(f"the {part.role} died")
        if self._crashes.too_many():
            raise WarploomError(f"{CRASHES_IN_A_MINUTE} actors of the job died within a minute; last: {message}")
        self._parts.append(part.restart())

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten < self._settings.heartbeat_s and self._beaten:
            return
        self._beaten = now
        try:
            lease_s, phase = self._settings.lease_s, self._phase
            self._state = self._jobs.heartbeat(self._job_id, self._generation, lease_s, phase=phase)
        except Unavailable as error:
            self._log.warning("redis is away", error=error.message)

    def _check_retries(self) -> None:
        most = self._spec.training.max_retries
        if self._lost_in_a_row > most:
            raise WarploomError(
                f"gave up: the run was lost {self._lost_in_a_row} times in a row without getting further, and "
                f"training.max_retries is {most}"
            )

    def _check_runtime(self) -> None:
        most = self._spec.training.max_runtime_s
        if most is not None and self._ran_s + time.monotonic() - self._began > most:
            raise RuntimeExceeded(
                f"training.max_runtime_s, {most:g} seconds of running, is over; the last checkpoint stays",
                field="/training/max_runtime_s",
                rule=f"at most {most:g} s",
            )

    def _give_back(self, reason: str, *, lost: bool = False) -> None:
        self._kill_all()
        self._tell("warning", {"message": f"{reason}; the job starts again from its last checkpoint"})
        self._jobs.release(self._job_id, self._generation, lost=lost)

    def _fail(self, error: WarploomError) -> None:
        self._kill_all()
        user = isinstance(error, InvalidInput | DataMissing | TrainingFailed | RuntimeExceeded)
        failure = Failure(
            code=error.code,
            message=error.message,
            category="user" if user else "system",
            retryable=not user,
        )
        self._log.error("job failed", code=error.code, message=error.message)
        self._jobs.finish(self._job_id, self._generation, FAILED, error=failure)

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        self._events.append(self._job_id, kind, data, generation=self._generation)

    def _kill_all(self) -> None:
        for part in self._parts:
            placement.kill(part.actor)
        self._parts.clear()
