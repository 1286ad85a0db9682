"""The evaluator of a job: measures published versions on held-out tasks, and exports the last one as a model."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import structlog
import torch

from service.models import ModelStore
from warploom.algorithms.base import Algorithm
from warploom.build import build
from warploom.codec import pack_model, unpack_meta
from warploom.errors import Unavailable
from warploom.evaluation import evaluate, held_out
from warploom.guard import job_code
from warploom.records import Model
from warploom.spec import JobSpec
from warploom.types import MetaState
from workers.context import Assignment, JobContext
from workers.joblog import logged

log = structlog.get_logger()
IDLE_S = 0.2


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, for its record."""

    once: str
    job: str | None = None
    sweep: str | None = None


class Evaluator:
    """One evaluator actor of one job."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    @logged(lambda _: "evaluator")
    def run(self) -> str:
        """Measure every `evaluation.every` rounds until the last version, then register that one.

        A version that is replaced while an earlier one is measured is skipped; the last never is.

        Returns:
            The model's name.

        Raises:
            Fenced: a newer generation owns the job.
        """
        context = JobContext(self._assignment)
        torch.set_num_threads(1)
        algorithm = build(context.spec)
        metrics, meta = self._watch(context, algorithm)
        owner = self._assignment
        context.jobs.heartbeat(owner.job_id, owner.generation, context.settings.lease_s, phase="exporting")
        model = register(
            context.models,
            self._assignment.name,
            context.spec,
            algorithm,
            meta,
            metrics,
            Origin(once=self._assignment.job_id, job=self._assignment.job_id),
        )
        context.report("model", {"name": model.name, "version": model.version})
        self._show(context, metrics)
        context.tell_all()
        return model.name

    def _show(self, context: JobContext, metrics: dict[str, float]) -> None:
        """Put the last measurement beside the learner's numbers; the learner has ended, so nobody else writes them."""
        owner = self._assignment
        progress = context.jobs.get(owner.job_id).progress
        progress = progress.model_copy(update={"metrics": progress.metrics | metrics, "seconds_remaining": 0.0})
        context.jobs.heartbeat(owner.job_id, owner.generation, context.settings.lease_s, progress=progress)

    def _watch(self, context: JobContext, algorithm: Algorithm[Any]) -> tuple[dict[str, float], MetaState]:
        spec = context.spec
        known, due = -1, 0
        while True:
            found = self._newer(context, known)
            if found is not None:
                known = found.version
                last = known >= spec.training.rounds
                if known >= due or last:
                    with job_code(f"the evaluation after round {known}"):
                        metrics = evaluate(algorithm, found, held_out(spec), seed=spec.training.seed)
                    context.report("evaluation", {"meta_step": known, **metrics})
                    self._note(context, known, metrics.get("loss", math.nan))
                    due = (known // spec.evaluation.every + 1) * spec.evaluation.every
                if last:
                    return metrics, found
            time.sleep(IDLE_S)

    def _note(self, context: JobContext, version: int, loss: float) -> None:
        try:
            context.checkpoints.measured(version, loss)
        except Unavailable as error:
            log.warning("the measure of a checkpoint was not kept", reason=error.message)

    def _newer(self, context: JobContext, known: int) -> MetaState | None:
        try:
            newer = context.replay.meta(known)
        except Unavailable:
            return None
        return None if newer is None else unpack_meta(newer[1])


def register(
    models: ModelStore,
    name: str,
    spec: JobSpec,
    algorithm: Algorithm[Any],
    meta: MetaState,
    metrics: dict[str, float],
    origin: Origin,
) -> Model:
    """Store a meta-state as a servable model, once."""
    return models.register(
        name,
        pack_model(spec, meta),
        kind=spec.task.kind,
        input_shape=list(spec.task.input_shape),
        outputs=spec.task.outputs,
        parameters=sum(value.numel() for value in meta.params.values()),
        default_steps=algorithm.config.inner_steps,
        default_lr=algorithm.config.inner_lr,
        metrics=metrics,
        spec=spec.to_json(),
        **asdict(origin),
    )
