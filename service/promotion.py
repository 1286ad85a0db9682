"""A sweep's trial as a model: what `promote` does, and what every sweep does at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from service.models import ModelStore
from service.settings import Settings
from service.trials import TrialFiles
from warploom import wire
from warploom.errors import Conflict, NotFound, Unavailable
from warploom.records import Model, Sweep, Trial
from warploom.spec import JobSpec, SweepSpec


def best_of(spec: SweepSpec, trials: Iterable[Trial]) -> Trial | None:
    """The trial with the best evaluation; None when nothing was measured."""
    measured = [trial for trial in trials if trial.best is not None]
    target = min if spec.mode == "min" else max
    return target(measured, key=lambda trial: trial.best or 0.0) if measured else None


def promote(
    models: ModelStore, settings: Settings, sweep: Sweep, *, trial: str | None = None, name: str | None = None
) -> Model:
    """Register a trial's best meta-state as a version of a model; the same one a second time gives that version.

    Args:
        models: where to.
        settings: say where the trials' files lie.
        sweep: whose trial; it may still run.
        trial: its id; default: the best so far.
        name: of the model; default: the sweep's.

    Raises:
        NotFound: no such trial.
        Conflict: nothing of it was measured yet.
        InvalidInput: a name that breaks the pattern.
        Unavailable: its file cannot be reached.
    """
    spec = SweepSpec.model_validate(sweep.spec)
    chosen = _chosen(sweep, spec, trial)
    blob = TrialFiles(settings, sweep.id, chosen.id).best()
    if blob is None:
        raise Unavailable(
            f"the model of trial {chosen.id} lies where this process cannot read it, or is gone by now; with "
            "checkpoint_url an operator names a place that workers and API both reach"
        )
    return _register(models, sweep, spec, chosen, blob, name or sweep.name)


def _chosen(sweep: Sweep, spec: SweepSpec, trial_id: str | None) -> Trial:
    if trial_id is None:
        found = best_of(spec, sweep.trials)
    else:
        found = next((one for one in sweep.trials if one.id == trial_id), None)
        if found is None:
            rule = f"a trial of {sweep.id}"
            raise NotFound(f"no trial {trial_id!r}", field="/trial", rule=rule, value=trial_id)
    if found is None or found.best is None:
        what = f"trial {trial_id}" if trial_id else "any trial"
        rule = "a trial with an evaluation"
        raise Conflict(f"{sweep.id}: no evaluation of {what} is there yet", field="/trial", rule=rule, value=trial_id)
    return found


def _register(models: ModelStore, sweep: Sweep, spec: SweepSpec, trial: Trial, blob: bytes, name: str) -> Model:
    arrays, header = wire.decode("model", blob)
    job = JobSpec.parse(header["spec"])
    algorithm: Any = job.algorithm
    target = min if spec.mode == "min" else max
    rows = [row for row in trial.curve if row["meta_step"] == header["version"]]  # the file may be newer than the row
    return models.register(
        name,
        blob,
        kind=job.task.kind,
        input_shape=list(job.task.input_shape),
        outputs=job.task.outputs,
        parameters=sum(array.size for key, array in arrays.items() if key.startswith("p/")),
        default_steps=algorithm.inner_steps,
        default_lr=algorithm.inner_lr,
        metrics=target(rows or trial.curve, key=lambda row: row[spec.metric]),
        spec=job.to_json(),
        sweep=sweep.id,
        once=f"{sweep.id}:{trial.id}:{hashlib.sha256(blob).hexdigest()}",
    )
