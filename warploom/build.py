"""From a spec to the living objects: family, model, algorithm."""

from __future__ import annotations

from typing import Any, cast

from warploom import registry
from warploom.algorithms.base import Algorithm
from warploom.configs import ModelConfig, TaskConfig
from warploom.errors import UnfitPair
from warploom.models.base import Model
from warploom.optim.gimli import refuse_unfit
from warploom.spec import JobSpec
from warploom.tasks.base import TaskFamily


def build_family(config: TaskConfig) -> TaskFamily[Any]:
    """The task family that `config` describes.

    Example:
        >>> from warploom.tasks.configs.sinusoid import SinusoidConfig
        >>> build_family(SinusoidConfig()).config.outputs
        1
    """
    return cast("TaskFamily[Any]", registry.implementation("task", config)(config))


def build_model(config: ModelConfig, task: TaskConfig) -> Model:
    """The model that `config` describes, with inputs and outputs as the task has them.

    Raises:
        UnfitPair: the model cannot take such inputs.
    """
    reason = config.why_unfit(task.input_shape, task.outputs)
    if reason:
        raise UnfitPair(f"model {config.name!r} {reason}", field="/model", rule="takes the task's inputs")
    return cast("Model", registry.implementation("model", config)(config, task))


def build(spec: JobSpec, *, sampling: bool = True) -> Algorithm[Any]:
    """The algorithm of a job, bound to its model and its task family.

    Args:
        spec: the job.
        sampling: False where only tasks from elsewhere are adapted to: then the family's files need not be there, and
            its `sample`, `size` and `identity` must not be called.

    Raises:
        UnfitPair: they do not go together, or do not meet what differentiating through the inner loop requires
            (`warploom.optim.gimli`).
        DataMissing: the family's files are not there.
    """
    kind = registry.implementation("algorithm", spec.algorithm)
    family = build_family(spec.task) if sampling or kind.counts_tasks else _bare_family(spec.task)
    model = build_model(spec.model, spec.task)
    algorithm: Algorithm[Any] = kind(spec.algorithm, model, family)
    refuse_unfit(algorithm)
    return algorithm


def _bare_family(config: TaskConfig) -> TaskFamily[Any]:
    # Losses, augmentation and phases are functions of the config alone; a family's own constructor reads its files.
    family = cast("TaskFamily[Any]", object.__new__(registry.implementation("task", config)))
    TaskFamily.__init__(family, config)
    return family
