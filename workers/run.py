"""One run of one job: its actors, their deaths, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from service.connection import Connections
from service.events import EventLog
from service.jobs import JobClaim, JobStore, ran_s
from service.settings import Settings
from warploom.errors import Fenced, RunsLost, RuntimeExceeded, Unavailable, WarploomError
from warploom.records import CANCELLED, CANCELLING, FAILED, RUNNING, SUCCEEDED
from warploom.spec import JobSpec
from workers import placement
from workers.context import Assignment, replay_of, shipped
from workers.failures import failure_of
from workers.parts import EVALUATOR, LEARNER, Cast, Crashes, Part
from workers.patience import Answer, insist
from workers.stall import StallWatch

log = structlog.get_logger()
LEAVE_S = 10.0  # less than a supervisor waits for its runs when it goes
WATCH_S = 0.5
STARTING, TRAINING, EVALUATING = "starting", "training", "evaluating"


class _Stop(Exception):
    """A pause or a cancel was asked for, or the supervisor is going; the learner has left or had its time."""


class _Retry(Exception):
    """The learner died: start over from the checkpoint, as a new generation."""


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
        self._replay = replay_of(connections, self._assignment)
        self._watch = StallWatch(claim.job.id, self._events, self._replay, self._spec.training.max_stall_s)
        self._cast = Cast(self._assignment, self._spec)
        self._parts: list[Part] = []
        self._crashes = Crashes(self._cast.rollouts + 1)
        self._phase = STARTING
        self._state = claim.job.state
        self._lost_in_a_row = claim.job.lost_in_a_row
        self._ran_s, self._began = ran_s(claim.job), time.monotonic()
        self._leave_by: float | None = None
        self._beaten = 0.0
        self._over = False
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
            if self._over:
                self._free()

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
            self._insist(lambda: self._jobs.finish(self._job_id, self._generation, SUCCEEDED, model=model))
            self._over = True

    def _train(self) -> str:
        """The model's name."""
        self._beat()
        self._check_retries()
        if not self._wanted():
            raise _Stop
        self._start_all()
        while True:
            if self._beat():
                self._look_for_trouble()
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
                if part.role == LEARNER:
                    placement.call(part.actor, "leave")
        if now > self._leave_by:
            raise _Stop

    def _rest(self) -> None:
        self._kill_all()
        if self._state == CANCELLING:
            self._insist(lambda: self._jobs.finish(self._job_id, self._generation, CANCELLED))
        else:
            self._insist(lambda: self._jobs.release(self._job_id, self._generation))
        self._over = True

    def _start_all(self) -> None:
        resources = self._spec.resources
        if max(resources.learner_gpus, resources.rollout_gpus) > 0 and not placement.available_gpus(1.0):
            self._tell("warning", {"message": "the cluster has no GPU; the job runs on CPUs"})
        self._parts = self._cast.all()
        self._phase = TRAINING

    def _ended(self, part: Part) -> str | None:
        """What an actor's end means: a model's name from the evaluator, else nothing, a restart, or an error."""
        self._parts.remove(part)
        try:
            outcome = placement.result(part.future)
        except placement.ActorLost as error:
            self._lost(part, str(error))
            return None
        except Unavailable as error:  # of Redis or of the checkpoints, for longer than the actor would wait
            self._lost(part, error.message)
            return None
        if part.role == LEARNER:
            if outcome < self._spec.training.rounds:
                raise _Stop
            self._phase = EVALUATING
        return str(outcome) if part.role == EVALUATOR else None

    def _lost(self, part: Part, message: str) -> None:
        self._log.warning("actor lost", role=part.role, ident=part.ident, reason=message)
        self._tell("worker_lost", {"role": part.role, "ident": part.ident, "message": message})
        if part.restart is None:
            raise _Retry(f"the {part.role} died")
        if self._crashes.too_many():
            raise RunsLost(f"more than {self._crashes.most} actors of the job died within a minute; last: {message}")
        self._parts.append(part.restart())

    def _beat(self) -> bool:
        """Renew the lease when it is time; whether that was done."""
        now = time.monotonic()
        if now - self._beaten < self._settings.heartbeat_s and self._beaten:
            return False
        self._beaten = now
        try:
            lease_s, phase = self._settings.lease_s, self._phase
            self._state = self._jobs.heartbeat(self._job_id, self._generation, lease_s, phase=phase)
        except Unavailable as error:
            self._log.warning("redis is away", error=error.message)
            self._watch.forget()
            return False
        return True

    def _look_for_trouble(self) -> None:
        try:
            if self._state == RUNNING:
                self._watch.check()
            if self._phase == EVALUATING and not self._replay.done() and all(p.role != LEARNER for p in self._parts):
                # The replay server lost the last version before the evaluator read it: publish it anew.
                self._parts.append(self._cast.learner())
        except Unavailable as error:
            self._log.warning("redis is away", error=error.message)
            self._watch.forget()

    def _check_retries(self) -> None:
        most = self._spec.training.max_retries
        if self._lost_in_a_row > most:
            raise RunsLost(
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
        self._insist(lambda: self._jobs.release(self._job_id, self._generation, lost=lost))

    def _fail(self, error: WarploomError) -> None:
        self._kill_all()
        failure = failure_of(error)
        self._log.error("job failed", code=error.code, message=error.message)
        self._insist(lambda: self._jobs.finish(self._job_id, self._generation, FAILED, error=failure))
        self._over = True

    def _tell(self, kind: str, data: dict[str, str]) -> None:
        try:
            self._events.append(self._job_id, kind, data, generation=self._generation)
        except Unavailable as error:
            self._log.warning("an event was not stored", kind=kind, error=error.message)

    def _insist(self, move: Callable[[], Answer]) -> Answer:
        """Do a move of the record, however long Redis is away; only a supervisor that goes does not wait."""
        return insist(move, self._job_id, unless=self._stopping.is_set)

    def _free(self) -> None:
        """Give the buffer's memory back; a job that goes on later opens it anew. Without the server, time does it."""
        try:
            self._replay.close()
        except (Fenced, Unavailable) as error:
            self._log.warning("the replay buffer was not freed", error=error.message)

    def _kill_all(self) -> None:
        for part in self._parts:
            placement.kill(part.actor)
        self._parts.clear()
