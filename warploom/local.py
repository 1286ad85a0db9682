"""Meta-training in one process: the same rollout and learner steps as the service, without Redis and without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from warploom.build import build
from warploom.codec import pack_model
from warploom.errors import InvalidInput, TrainingFailed
from warploom.evaluation import evaluate, held_out
from warploom.learner import LearnerState
from warploom.local_replay import LocalReplay
from warploom.plan import plan_of
from warploom.rollout import RolloutLoop
from warploom.spec import JobSpec
from warploom.training import LearnerLoop
from warploom.types import MetaState

OnEvent = Callable[[str, dict[str, Any]], None]
OnEvaluation = Callable[[MetaState, dict[str, float]], None]


class Next(Enum):
    """What is to be done after a round."""

    GO_ON = "go on"
    END = "measure once more, and end"
    LEAVE = "end as it is"


@dataclass(frozen=True)
class LocalResult:
    """What a local run gives.

    Args:
        meta: the trained meta-state.
        metrics: the last evaluation; empty when there was none.
        curve: all evaluations, each with its `meta_step`.
        path: the model file, if one was asked for.
    """

    meta: MetaState
    metrics: dict[str, float]
    curve: list[dict[str, float]]
    path: Path | None


def train(
    spec: JobSpec,
    on_event: OnEvent | None = None,
    out: Path | None = None,
    *,
    on_evaluation: OnEvaluation | None = None,
    begin: LearnerState | None = None,
    checkpoint: Callable[[LearnerState], bool] = lambda _state: True,
    after_round: Callable[[LearnerState], Next] = lambda _state: Next.GO_ON,
) -> LocalResult:
    """Train `spec` here and now.

    Args:
        spec: the job; `rollouts`, `learners` and `resources` mean nothing here.
        on_event: called with kind (`round`, `evaluation`, `warning`) and data as training goes.
        out: directory for `model.safetensors` and `metrics.json`.
        on_evaluation: called with the meta-state and its metrics after each evaluation.
        begin: the state to go on from; in place of a new one.
        checkpoint: as for `warploom.training.LearnerLoop`.
        after_round: called with the state after each round but the last; says what is next.

    Example:
        >>> spec = JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp", "training": {"rounds": 1}})
        >>> train(spec).meta.version
        1
    """
    if spec.from_checkpoint is not None:
        rule = "left out: training here begins anew"
        raise InvalidInput(f"/from_checkpoint: must be {rule}", field="/from_checkpoint", rule=rule)
    report = on_event or (lambda _kind, _data: None)
    algorithm = build(spec)
    replay = LocalReplay(plan_of(spec))
    state = begin or LearnerState(algorithm.init(spec.training.seed))
    learner = LearnerLoop(algorithm, spec, replay, state, report=report, checkpoint=checkpoint)
    rollout = RolloutLoop(algorithm, spec, replay, "local")

    def measure(meta: MetaState) -> None:
        metrics = evaluate(algorithm, meta, held_out(spec), seed=spec.training.seed)
        curve.append({"meta_step": float(meta.version), **metrics})
        report("evaluation", dict(curve[-1]))
        if on_evaluation is not None:
            on_evaluation(meta, dict(curve[-1]))

    def due() -> bool:
        return learner.done or learner.state.meta.version % spec.evaluation.every == 0

    curve: list[dict[str, float]] = []
    if due():
        measure(state.meta)
    learner.start()
    what = Next.GO_ON
    while not learner.done and what is Next.GO_ON:
        if not learner.step():
            if not rollout.step():
                raise TrainingFailed("rollout and learner wait for each other; raise replay.max_bytes")
            continue
        what = Next.GO_ON if learner.done else after_round(learner.state)
        if due() or what is Next.END:
            measure(learner.state.meta)
    path = _write(spec, learner.state.meta, curve, out) if out else None
    return LocalResult(learner.state.meta, curve[-1] if curve else {}, curve, path)


def _write(spec: JobSpec, meta: MetaState, curve: list[dict[str, float]], out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.safetensors"
    path.write_bytes(pack_model(spec, meta))
    (out / "metrics.json").write_text(json.dumps({"spec": spec.to_json(), "curve": curve}, indent=2))
    return path
