"""Sweeps: Ray Tune over the fields of a job spec. A trial is a whole job in one process.

Two halves: `SweepRun` (a thread of the supervisor) watches and ends; `Sweeper` (an actor) drives Tune. What is asked of
a sweep (pause, stop) its trials see for themselves, between two rounds; the driver begins no more of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from service.connection import Connections, connect
from service.jobs import ran_s
from service.models import ModelStore
from service.promotion import best_of, promote
from service.settings import Settings
from service.sweeps import SweepClaim, SweepStore
from service.trials import TrialFiles
from warploom import plugins
from warploom.errors import Fenced, RunsLost, TrainingFailed, Unavailable, WarploomError
from warploom.records import CANCELLED, CANCELLING, FAILED, PAUSING, RUNNING, STOPPING, SUCCEEDED, Model, Trial
from warploom.spec import SweepSpec
from workers import placement
from workers.context import shipped
from workers.failures import failure_of
from workers.patience import PATIENCE_S, Answer, insist
from workers.trial import Leash
from workers.trials import BOOKS, TrialBook

log = structlog.get_logger()
WATCH_S = 0.5


class SweepRun:
    """Runs a claimed sweep to its end; made for a thread of its own. Arguments as `workers.run.JobRun`."""

    def __init__(
        self, connections: Connections, settings: Settings, claim: SweepClaim, stopping: threading.Event
    ) -> None:
        self._store, self._settings, self._stopping = SweepStore(connections), settings, stopping
        self._id, self._generation = claim.sweep.id, claim.generation
        self._state, self._retries = claim.sweep.state, claim.sweep.retries
        self._most = SweepSpec.model_validate(claim.sweep.spec).job.training.max_retries

    def run(self) -> None:
        """Until the sweep ended, rests, was given back, or belongs to another generation."""
        actor = None
        try:
            if self._state == CANCELLING:
                self._store.finish(self._id, self._generation, CANCELLED)
            elif self._retries > self._most:
                lost = f"gave up: the run was lost {self._retries} times, and training.max_retries is {self._most}"
                self._end_badly(RunsLost(lost))
            elif self._state == PAUSING:
                self._store.release(self._id, self._generation)
            else:
                actor = placement.start_actor(Sweeper, self._id, self._generation, shipped(self._settings), cpus=0.0)
                self._watch(placement.call(actor, "run"))
        except Fenced:
            log.warning("replaced by a newer generation", sweep=self._id)
        except Exception:
            log.exception("the sweep's run broke; its lease will run out", sweep=self._id)
        finally:
            if actor is not None:
                placement.kill(actor)

    def _watch(self, future: Any) -> None:
        beaten = 0.0
        while not placement.finished([future], WATCH_S):
            if self._stopping.is_set():
                self._store.release(self._id, self._generation)
                return
            if time.monotonic() - beaten > self._settings.heartbeat_s:
                beaten = time.monotonic()
                if self._beat() == CANCELLING:
                    self._insist(lambda: self._store.finish(self._id, self._generation, CANCELLED))
                    return
        try:
            found = placement.result(future)
        except placement.ActorLost as error:
            log.warning("the sweep's driver died", sweep=self._id, reason=str(error))
            self._insist(lambda: self._store.release(self._id, self._generation, lost=True))
        except Unavailable as error:  # for longer than the driver would wait
            log.warning("the sweep's driver gave up", sweep=self._id, reason=error.message)
            self._insist(lambda: self._store.release(self._id, self._generation, lost=True))
        except WarploomError as error:
            self._end_badly(error)
        else:
            self._insist(lambda: self._end(found))

    def _beat(self) -> str | None:
        try:
            return self._store.heartbeat(self._id, self._generation, self._settings.lease_s)
        except Unavailable as error:
            log.warning("redis is away", sweep=self._id, error=error.message)
            return None

    def _end(self, found: tuple[str, str] | None) -> None:
        if found is not None:
            self._store.finish(self._id, self._generation, SUCCEEDED, model=found[0], best_trial=found[1])
        elif self._store.state(self._id) == STOPPING:
            self._store.finish(self._id, self._generation, CANCELLED)
        else:
            self._store.release(self._id, self._generation)

    def _end_badly(self, error: WarploomError) -> None:
        self._insist(lambda: self._store.finish(self._id, self._generation, FAILED, error=failure_of(error)))

    def _insist(self, move: Callable[[], object]) -> None:
        insist(move, self._id, unless=self._stopping.is_set)


class Sweeper:
    """Drives Ray Tune for one sweep, from an actor of its own.

    Args:
        sweep_id, generation: the sweep.
        settings: as plain values.
    """

    def __init__(self, sweep_id: str, generation: int, settings: dict[str, Any]) -> None:
        self._id, self._generation, self._shipped = sweep_id, generation, settings
        self._settings = Settings.model_validate(settings)
        plugins.enable(self._settings.plugins)
        self._connections = connect(self._settings, wait_s=PATIENCE_S)
        self._store = SweepStore(self._connections)
        self._untold: dict[str, Trial] = {}

    def run(self) -> tuple[str, str] | None:
        """What is left of the trials, then the best of all as a model.

        Returns:
            The model's name and the best trial's id; None when the sweep rests, or was stopped before anything was
            measured.

        Raises:
            TrainingFailed: no trial ended with a result.
            Unavailable: a server was away for longer than it is waited for.
        """
        sweep = self._insist(lambda: self._store.get(self._id))
        spec = SweepSpec.model_validate(sweep.spec)
        book = TrialBook(spec, self._put, sweep.trials, Leash(lambda: self._store.state(self._id)))
        BOOKS[self._id] = book
        left_s = None if spec.time_budget_s is None else spec.time_budget_s - ran_s(sweep)
        if sweep.state == RUNNING and book.left and (left_s is None or left_s > 0):
            self._tune(spec, book, left_s)
        self._insist(self._tell)
        asked = self._insist(lambda: self._store.state(self._id))
        if book.interrupted and asked != STOPPING:
            return None
        return self._best(spec, book, asked)

    def _best(self, spec: SweepSpec, book: TrialBook, asked: str) -> tuple[str, str] | None:
        best = best_of(spec, book.trials.values())
        if best is None:
            if asked == STOPPING:
                return None
            raise TrainingFailed("no trial of the sweep gave a result; see the trials' errors")
        model = self._insist(lambda: self._promoted(book, best.id))
        for trial_id in book.trials:
            TrialFiles(self._settings, self._id, trial_id).clear()
        return model.name, best.id

    def _promoted(self, book: TrialBook, trial_id: str) -> Model:
        stored = self._store.get(self._id).model_copy(update={"trials": list(book.trials.values())})
        return promote(ModelStore(self._connections), self._settings, stored, trial=trial_id)

    def _put(self, trial: Trial) -> None:
        self._untold[trial.id] = trial
        try:
            self._tell()
        except Unavailable as error:
            log.warning("a trial's row is not stored yet", error=error.message)

    def _tell(self) -> None:
        for trial_id in list(self._untold):
            self._store.put_trial(self._id, self._generation, self._untold[trial_id])
            del self._untold[trial_id]

    def _insist(self, do: Callable[[], Answer]) -> Answer:
        return insist(do, self._id, most_s=PATIENCE_S)

    def _tune(self, spec: SweepSpec, book: TrialBook, left_s: float | None) -> None:
        from ray import tune

        from workers import search
        from workers.trial import run_trial
        from workers.trial_watch import TrialWatch

        home = self._settings.home.expanduser().resolve() / "sweeps" / self._id / str(self._generation)
        home.mkdir(parents=True, exist_ok=True)
        resources = {
            "cpu": spec.job.resources.rollout_cpus,
            "gpu": placement.available_gpus(spec.job.resources.rollout_gpus),
        }
        trial = tune.with_parameters(run_trial, sweep_id=self._id, generation=self._generation, settings=self._shipped)
        config = tune.TuneConfig(
            metric=spec.metric,
            mode=spec.mode,
            num_samples=book.left,
            max_concurrent_trials=spec.max_concurrent,
            time_budget_s=left_s,
            search_alg=search.Suggestions(self._id, spec),
            scheduler=search.scheduler(self._id, spec),
        )
        told = tune.RunConfig(name="tune", storage_path=str(home), verbose=0, callbacks=[TrialWatch(self._id)])
        tune.Tuner(tune.with_resources(trial, resources), tune_config=config, run_config=told).fit()
