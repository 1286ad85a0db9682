"""What a job would do and need, from its spec alone. No torch here: the API reads it.

The sizes of all parameters follow from the configurations, tensor by tensor; a test builds every model and compares.
"""

from __future__ import annotations

from typing import NamedTuple

from warploom.errors import InvalidInput
from warploom.plan import plan_of
from warploom.records import Estimate
from warploom.spec import JobSpec

WIDTH = 4
STORED_WIDTH = {"float32": 4, "bfloat16": 2}
ADAM_MOMENTS = 2


class Sizes(NamedTuple):
    """Numbers in a job's meta-state; None where the spec does not say."""

    model: int | None
    adapted: int | None
    beside: int | None

    @property
    def learned(self) -> int | None:
        """All numbers of the meta-state but running statistics."""
        return None if self.model is None or self.beside is None else self.model + self.beside


def sizes(spec: JobSpec) -> Sizes:
    """How many numbers a job's model, its tasks and its meta-state hold.

    Example:
        >>> sizes(JobSpec.parse({"algorithm": "maml", "task": "sinusoid", "model": "mlp"}))
        Sizes(model=1761, adapted=1761, beside=0)
    """
    try:
        found = spec.model.sizes(spec.task.input_shape, spec.task.outputs)
    except NotImplementedError:
        return Sizes(None, None, None)
    adapted = {name: size for name, size in found.items() if spec.model.role(name) in spec.algorithm.adapted}
    return Sizes(sum(found.values()), sum(adapted.values()), spec.algorithm.beside(adapted))


def estimate(spec: JobSpec) -> Estimate:
    """The estimate of a job.

    Raises:
        InvalidInput: rollouts and learner would wait for each other for ever.
    """
    training, config, counted = spec.training, spec.algorithm, sizes(spec)
    steps = int(getattr(config, "inner_steps", 0))
    tasks = training.rounds * training.meta_batch
    measured = 1 + -(-training.rounds // spec.evaluation.every)
    trajectory = _trajectory(spec, counted)
    learned = None if counted.learned is None else counted.learned * WIDTH
    adam = getattr(config, "outer", None) == "adam"
    notes = _notes(counted)
    return Estimate(
        tasks=tasks,
        inner_steps=tasks * steps,
        evaluations=measured,
        evaluation_inner_steps=measured * spec.evaluation.tasks * steps,
        parameters=counted.model,
        adapted_parameters=counted.adapted,
        meta_state_bytes=learned,
        learner_bytes=None if learned is None else learned * (1 + ADAM_MOMENTS * adam),
        trajectory_bytes=trajectory,
        replay_bytes=_held(spec, trajectory, notes),
        replay_bytes_written=None if trajectory is None else tasks * trajectory,
        notes=notes,
    )


def _trajectory(spec: JobSpec, counted: Sizes) -> int | None:
    """Stored points in the buffer's precision, and one gradient for at most all that is learned."""
    if counted.model is None or counted.adapted is None:
        return None
    rule = getattr(spec.algorithm, "inner_optimiser", None)
    state = rule.state_size(counted.adapted) if rule is not None else 0
    points = spec.algorithm.points * (counted.adapted + state) * STORED_WIDTH[spec.replay.dtype]
    return points + (counted.model + (counted.beside or 0)) * WIDTH


def _held(spec: JobSpec, trajectory: int | None, notes: list[str]) -> int | None:
    plan = plan_of(spec)
    if trajectory is None or spec.training.rounds == 0:
        return trajectory and 0
    unit = trajectory * spec.training.unit
    try:
        plan.check_unit_bytes(unit)
    except InvalidInput as error:
        notes.append(f"may not run: {error.message}")
    whole = spec.training.meta_batch * trajectory if plan.mode == "sync" else plan.window * unit
    return min(whole, plan.max_bytes)


def _notes(counted: Sizes) -> list[str]:
    if counted.model is None:
        return ["this model does not say its sizes, so that bytes are unknown"]
    if counted.beside is None:
        return ["what this algorithm learns beside the model depends on the data, so that its bytes are unknown"]
    return []
