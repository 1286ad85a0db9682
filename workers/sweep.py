"""Sweeps: Ray Tune over the fields of a job spec. A trial is a whole job in one process.

Two halves: `SweepRun` (a thread of the supervisor) watches and ends; `Sweeper` (an actor) drives Tune.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from service.connection import Connections, connect
from service.models import ModelStore
from service.settings import Settings
from service.sweeps import SweepClaim, SweepStore
from warploom import plugins
from warploom.codec import pack_model, unpack_model
from warploom.errors import Fenced, TrainingFailed, Unavailable, WarploomError
from warploom.records import CANCELLED, FAILED, SUCCEEDED, Failure, Trial
from warploom.spec import Dimension, SweepSpec
from warploom.types import MetaState
from workers import placement
from workers.context import shipped
from workers.evaluator import Origin, register
from workers.trials import BOOKS, TrialBook

log = structlog.get_logger()
WATCH_S = 0.5
BEST = "best.safetensors"
HOPELESS = 1e30  # stands for a loss that is not finite, which schedulers and searchers cannot compare


class SweepRun:
    """Runs a claimed sweep to its end; made for a thread of its own. Arguments as `workers.run.JobRun`."""

    def __init__(
        self, connections: Connections, settings: Settings, claim: SweepClaim, stopping: threading.Event
    ) -> None:
        self._store, self._settings, self._stopping = SweepStore(connections), settings, stopping
        self._id, self._generation = claim.sweep.id, claim.generation
        self._name, self._spec = claim.sweep.name, claim.sweep.spec

    def run(self) -> None:
        """Until the sweep ended, was given back, or belongs to another generation."""
        actor = placement.start_actor(
            Sweeper, self._id, self._name, self._generation, self._spec, shipped(self._settings), cpus=0.0
        )
        try:
            self._watch(placement.call(actor, "run"))
        except Fenced:
            log.warning("replaced by a newer generation", sweep=self._id)
        except Exception:
            log.exception("the sweep's run broke; its lease will run out", sweep=self._id)
        finally:
            placement.kill(actor)

    def _watch(self, future: Any) -> None:
        beaten = 0.0
        while not placement.finished([future], WATCH_S):
            if self._stopping.is_set():
                self._store.release(self._id, self._generation)
                return
            if time.monotonic() - beaten > self._settings.heartbeat_s:
                beaten = time.monotonic()
                if self._store.heartbeat(self._id, self._generation, self._settings.lease_s):
                    self._store.finish(self._id, self._generation, CANCELLED)
                    return
        try:
            model, best = placement.result(future)
        except placement.ActorLost as error:
            self._end_badly(WarploomError(f"the sweep's driver died: {error}"))
        except WarploomError as error:
            self._end_badly(error)
        else:
            self._store.finish(self._id, self._generation, SUCCEEDED, model=model, best_trial=best)

    def _end_badly(self, error: WarploomError) -> None:
        failure = Failure(code=error.code, message=error.message)
        self._store.finish(self._id, self._generation, FAILED, error=failure)


class Sweeper:
    """Drives Ray Tune for one sweep, from an actor of its own.

    Args:
        sweep_id, name, generation: the sweep.
        spec: its `SweepSpec` as JSON.
        settings: as plain values.
    """

    def __init__(
        self, sweep_id: str, name: str, generation: int, spec: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        self._id, self._name, self._generation = sweep_id, name, generation
        self._settings = Settings.model_validate(settings)
        plugins.enable(self._settings.plugins)
        self._spec = SweepSpec.model_validate(spec)

    def run(self) -> tuple[str, str]:
        """All trials, then the best one as a model.

        Returns:
            The model's name and the best trial's id.

        Raises:
            TrainingFailed: no trial ended with a result.
        """
        connections = connect(self._settings)
        home = self._settings.home.expanduser().resolve() / "sweeps" / self._id / str(self._generation)
        home.mkdir(parents=True, exist_ok=True)
        book = BOOKS[self._id] = TrialBook(self._spec, self._put(connections))
        _tune(self._id, self._spec, home, self._settings.plugins)
        best = book.best()
        if best is None:
            raise TrainingFailed("no trial of the sweep gave a result; see the trials' errors")
        return self._register(connections, home, best), best.id

    def _put(self, connections: Connections) -> Callable[[Trial], None]:
        store = SweepStore(connections)

        def put(trial: Trial) -> None:
            try:
                store.put_trial(self._id, self._generation, trial)
            except Unavailable as error:
                log.warning("a trial's row was not stored", error=error.message)

        return put

    def _register(self, connections: Connections, home: Path, best: Trial) -> str:
        from warploom.build import build

        spec, meta = unpack_model((home / best.id / BEST).read_bytes())
        target = min if self._spec.mode == "min" else max
        metrics = target(best.curve, key=lambda row: row[self._spec.metric])
        model = register(
            ModelStore(connections),
            self._name,
            spec,
            build(spec),
            meta,
            metrics,
            Origin(once=self._id, sweep=self._id),
        )
        return model.name


def _tune(sweep_id: str, spec: SweepSpec, home: Path, allowed: Sequence[str]) -> None:
    from ray import tune

    from workers.trial_watch import TrialWatch

    resources = {
        "cpu": spec.job.resources.rollout_cpus,
        "gpu": placement.available_gpus(spec.job.resources.rollout_gpus),
    }
    trial = tune.with_parameters(_trial, sweep=spec.to_json(), home=str(home), allowed=list(allowed))
    tuner = tune.Tuner(
        tune.with_resources(trial, resources),
        param_space={path: _domain(dimension) for path, dimension in spec.space.items()},
        tune_config=tune.TuneConfig(
            metric=spec.metric,
            mode=spec.mode,
            num_samples=spec.num_samples,
            max_concurrent_trials=spec.max_concurrent,
            time_budget_s=spec.time_budget_s,
            search_alg=_search(spec),
            scheduler=_scheduler(spec),
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(home), verbose=0, callbacks=[TrialWatch(sweep_id)]),
    )
    tuner.fit()


def _trial(config: dict[str, Any], sweep: dict[str, Any], home: str, allowed: Sequence[str] = ()) -> None:
    """One trial, in an actor of Tune's: train, keep the best meta-state on disk, report each evaluation."""
    import torch
    from ray import tune

    from warploom.local import train

    torch.set_num_threads(1)
    plugins.enable(allowed)
    spec = SweepSpec.model_validate(sweep)
    job = spec.trial(config)
    kept = Path(home) / tune.get_context().get_trial_id()
    kept.mkdir(parents=True, exist_ok=True)
    seen: list[float] = []

    def measured(meta: MetaState, row: dict[str, float]) -> None:
        worst = HOPELESS if spec.mode == "min" else -HOPELESS
        row = {**row, spec.metric: row.get(spec.metric, worst)}
        value = row[spec.metric] if spec.mode == "min" else -row[spec.metric]
        if not seen or value < min(seen):
            (kept / "writing").write_bytes(pack_model(job, meta))
            (kept / "writing").replace(kept / BEST)
        seen.append(value)
        tune.report(row)

    train(job, on_evaluation=measured)


def _domain(dimension: Dimension) -> Any:
    from ray import tune

    if dimension.type == "choice":
        return tune.choice(list(dimension.values or ()))
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.type == "randint":
        return tune.randint(int(low), int(high) + 1)
    return tune.loguniform(low, high) if dimension.type == "loguniform" else tune.uniform(low, high)


def _search(spec: SweepSpec) -> Any:
    """Optuna's tree-structured Parzen estimator, or random draws; both by the sweep's seed."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    if spec.search == "random":
        return BasicVariantGenerator(random_state=spec.seed)
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(seed=spec.seed)


def _scheduler(spec: SweepSpec) -> Any:
    """ASHA by evaluations, or none: every trial to its end."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if spec.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    evaluations = spec.job.training.rounds // spec.job.evaluation.every + 2
    grace = min(spec.grace_evaluations + 1, evaluations)  # the evaluation before any training decides nothing
    return ASHAScheduler(max_t=evaluations, grace_period=grace, reduction_factor=3)
