"""What a user asks for: a job, or a sweep over a job's fields. Validated once, at the door, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError

from warploom import registry
from warploom.configs import AlgorithmConfig, Config, ModelConfig, NamedConfig, TaskConfig
from warploom.errors import InvalidInput, UnfitPair, WarploomError
from warploom.samplers import SamplerName

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
ALIAS_PATTERN = r"^[A-Za-z][A-Za-z0-9._-]{0,62}$"
Mode = Literal["sync", "async"]
MOST_PAIRS = 16
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=MOST_PAIRS),
]


def _pick(shelf: registry.Shelf) -> Any:
    def validate(value: Any) -> NamedConfig:
        if isinstance(value, NamedConfig):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"must be an object with a 'name', one of: {', '.join(sorted(registry.TABLES[shelf]))}")
        try:
            config = registry.config_class(shelf, value["name"])
        except InvalidInput as error:
            raise ValueError(error.message) from None
        return config.model_validate(value)

    return validate


@dataclass(frozen=True)
class _Schema:
    """The names of a table, read when a schema is asked for: plugins may have come since this module was imported."""

    shelf: registry.Shelf

    def __get_pydantic_json_schema__(self, _core: Any, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        names = sorted(registry.TABLES[self.shelf])
        return {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "enum": names}},
            "additionalProperties": True,
            "description": f"Options depend on the name; GET /v1/catalog gives the schema of each {self.shelf}.",
        }


AnyAlgorithm = Annotated[SerializeAsAny[AlgorithmConfig], BeforeValidator(_pick("algorithm")), _Schema("algorithm")]
AnyTask = Annotated[SerializeAsAny[TaskConfig], BeforeValidator(_pick("task")), _Schema("task")]
AnyModel = Annotated[SerializeAsAny[ModelConfig], BeforeValidator(_pick("model")), _Schema("model")]


class TrainingSpec(Config):
    """How the outer loop runs."""

    mode: Mode = Field("sync", description="sync: rounds, reproducible; async: rollouts and learner at their own pace")
    rounds: int = Field(100, ge=0, le=10_000_000, description="outer rounds; each uses meta_batch tasks")
    meta_batch: int = Field(5, ge=1, le=4096, description="tasks per round")
    unit: int = Field(1, ge=1, le=4096, description="tasks that one rollout call adapts at once")
    rollouts: int = Field(2, ge=1, le=1024, description="rollout actors")
    learners: int = Field(1, ge=1, le=256, description="learner processes; from 2 on, a Ray Train worker group")
    seed: int = Field(0, ge=0, lt=2**31)
    checkpoint_every: int = Field(10, ge=1, le=1_000_000, description="rounds between two checkpoints")
    max_runtime_s: float | None = Field(
        None, gt=0, le=1e9, description="seconds of running, pauses left out, after which the job fails; null: no end"
    )
    max_retries: int = Field(
        10,
        ge=0,
        le=1000,
        description="losses of its run in a row, without progress, after which the job still goes on",
    )
    max_stall_s: float = Field(
        3600, gt=0, le=1e9, description="seconds without a stored unit, an event or a round after which the job fails"
    )
    max_bad_updates: int = Field(
        20, ge=1, le=1_000_000, description="non-finite meta-gradients in a row, each dropped, at which the job fails"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="what becomes of all outer step sizes over the rounds: they stay; fall to 0 in a line, or along "
        "half a cosine; on top of what an algorithm does itself",
    )

    def step_scale(self, version: int) -> float:
        """The factor of all outer step sizes in the round that makes `version` + 1 of `version`.

        Example:
            >>> spec = TrainingSpec(rounds=4, schedule="cosine")
            >>> [round(spec.step_scale(version), 3) for version in range(4)]
            [1.0, 0.854, 0.5, 0.146]
        """
        way = version / max(self.rounds, 1)
        if self.schedule == "linear":
            return 1.0 - way
        return 0.5 * (1.0 + math.cos(math.pi * way)) if self.schedule == "cosine" else 1.0

    @property
    def units_per_round(self) -> int:
        """Work units in one round; the last may be smaller than `unit`."""
        return -(-self.meta_batch // self.unit)


class EvaluationSpec(Config):
    """How often, and on how many held-out tasks, the model is measured."""

    every: int = Field(10, ge=1, le=1_000_000, description="rounds between two evaluations")
    tasks: int = Field(10, ge=1, le=10_000, description="held-out tasks per evaluation")
    split: Literal["validation", "test"] = "test"


class ReplaySpec(Config):
    """The shared buffer of trajectories."""

    max_bytes: int = Field(2 * 2**30, ge=2**20, le=2**44, description="hard budget of the buffer, in bytes")
    max_trajectories: int | None = Field(
        None, ge=1, le=10**9, description="hard budget of the buffer, in trajectories; null: bytes alone"
    )
    when_full: Literal["wait", "drop_oldest"] = Field(
        "wait", description="async: rollouts wait, or the oldest trajectories go"
    )
    checkpoint: bool = Field(
        False, description="async: checkpoints hold the buffer too, so that it is not collected anew after a loss"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of stored points")
    delta: bool = Field(False, description="store points as differences to the first of their path; exact in float32")
    compression: Literal["none", "lz4"] = Field("none", description="of stored chunks")
    max_rejections: int = Field(
        3, ge=1, le=1000, description="so many times may a unit turn out unreadable before the job fails"
    )
    samples_per_insert: float = Field(
        1.0, gt=0, le=1000, description="async: how often a trajectory is used, on average"
    )
    min_trajectories: int = Field(1, ge=1, le=1_000_000, description="async: trajectories before the first sample")
    ahead: int = Field(2, ge=1, le=1000, description="async: rounds of trajectories that rollouts may be ahead")
    max_staleness: int = Field(8, ge=0, le=1_000_000, description="async: versions a trajectory may lag behind")
    sampler: SamplerName = Field("uniform", description="async: which trajectories a round uses")
    max_times_sampled: int | None = Field(
        None, ge=1, le=1_000_000, description="async: most uses of a trajectory; null: as its sampler has it"
    )
    priority_exponent: float = Field(0.6, ge=0, le=10, description="prioritized: power of the support loss")
    importance_exponent: float = Field(0.4, ge=0, le=1, description="prioritized: 1 undoes the bias of the sampling")
    uniform_share: float = Field(0.1, ge=0.001, le=1, description="prioritized, fresh: share that is drawn uniformly")
    half_life: float = Field(4.0, ge=0.01, le=1e6, description="fresh: versions after which the weight is one half")


class ResourceSpec(Config):
    """What each actor asks of Ray."""

    rollout_gpus: float = Field(0, ge=0, le=8)
    learner_gpus: float = Field(0, ge=0, le=8)
    rollout_cpus: float = Field(1, ge=0, le=256)
    rollout_threads: int = Field(1, ge=1, le=256, description="threads of a rollout actor")
    learner_threads: int | None = Field(
        None, ge=1, le=256, description="threads of a learner; null: all cores, but one in async mode"
    )


class JobSpec(Config):
    """A meta-training job.

    Example:
        >>> spec = JobSpec.parse({"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp"})
        >>> spec.training.mode
        'sync'
    """

    name: str | None = Field(None, pattern=NAME_PATTERN, description="name of the model; default: the job's id")
    metadata: Metadata = Field({}, exclude=True, description="your own words about the job; can be changed later")
    from_checkpoint: str | None = Field(
        None,
        pattern=r"^(job_[0-9a-z]{20}|ckpt_[0-9a-z]{20}_\d{1,10})$",
        description="begin with the state in a checkpoint, at its round: its id, or that of a job for its newest one",
    )
    algorithm: AnyAlgorithm
    task: AnyTask
    model: AnyModel
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    replay: ReplaySpec = ReplaySpec()
    resources: ResourceSpec = ResourceSpec()

    @model_validator(mode="after")
    def _fits(self) -> JobSpec:
        reason = self.why_unfit()
        if reason is not None:
            raise _fault(UnfitPair.code, reason, self._at_fault())
        if self.training.unit > self.training.meta_batch:
            unit, most = self.training.unit, self.training.meta_batch
            reason = f"training.unit ({unit}) must not exceed training.meta_batch ({most})"
            raise _fault("at most training.meta_batch", reason, ("training", "unit"))
        if self.training.mode == "sync" and (self.replay.sampler != "uniform" or self.replay.max_times_sampled):
            reason = "replay.sampler and replay.max_times_sampled are for training.mode async: a sync round uses every "
            raise _fault("uniform in sync mode", reason + "unit of its round once", ("replay", "sampler"))
        unused = "delta" if self.replay.delta else "dtype" if self.replay.dtype != "float32" else None
        if unused and self.algorithm.points == 0:
            reason = (
                f"replay.{unused} is about stored points, and algorithm {self.algorithm.name!r} stores none: "
                "leave it out"
            )
            raise _fault("left out where no points are stored", reason, ("replay", unused))
        return self

    def _at_fault(self) -> tuple[str, ...]:
        """Where a misfit is mended; the model is what most users will change."""
        through = getattr(self.algorithm, "why_not_through", None)
        return ("algorithm", "inner_optimiser") if through and through() else ("model",)

    def why_unfit(self) -> str | None:
        """Why algorithm, task and model do not go together, with what would fit; None when they do."""
        lacking = self.algorithm.needs - self.model.provided()
        if lacking:
            fitting = [name for name in map(self._fitting, registry.MODELS) if name]
            return (
                f"algorithm {self.algorithm.name!r} needs {', '.join(sorted(lacking))} parameters and model "
                f"{self.model.name!r} has none; models that fit: {', '.join(fitting) or 'none of the table'}"
            )
        reason = unfit_model(self.model, self.task)
        if reason:
            return f"model {self.model.name!r} {reason}"
        reason = self.algorithm.why_unfit(self.task, self.model)
        return f"algorithm {self.algorithm.name!r} {reason}" if reason else None

    def _fitting(self, name: str) -> str | None:
        """How the model `name` would fit algorithm and task, in words; None when it would not."""
        model = _model_class(name)
        if unfit_model(model(name=name), self.task) is not None:
            return None
        lacking = self.algorithm.needs - model.provides
        if lacking == {"warp"} and "warp_pattern" in model.model_fields:
            return f"{name} with a warp_pattern"
        return None if lacking else name

    @classmethod
    def parse(cls, document: Any) -> JobSpec:
        """The spec in `document`, or an error that names the first field at fault.

        Raises:
            InvalidInput: a field breaks a rule.
            UnfitPair: algorithm, task and model do not go together.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise first_problem(error) from None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with every default written out."""
        return self.model_dump(mode="json")


def unfit_model(model: ModelConfig, task: TaskConfig) -> str | None:
    """Why a model cannot learn a task, with what would fit, without naming it; None when it can."""
    if task.only_with and model.name not in task.only_with:
        return f"does not go with task {task.name!r}; use {' or '.join(sorted(task.only_with))}"
    if model.only_for and task.name not in model.only_for:
        return f"goes with task {' or '.join(sorted(model.only_for))} only, not with {task.name!r}; use mlp or conv4"
    return model.why_unfit(task.input_shape, task.outputs)


def _model_class(name: str) -> Any:
    return registry.config_class("model", name)


def pointer(location: tuple[int | str, ...]) -> str:
    """A JSON pointer to `location`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _fault(rule: str, reason: str, at: tuple[str, ...]) -> PydanticCustomError:
    """A complaint about several fields that says at which of them it is mended."""
    return PydanticCustomError(rule, "{reason}", {"reason": reason, "at": at})


def location(complaint: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Where pydantic's complaint, as in `ValidationError.errors()`, is mended."""
    return (*complaint["loc"], *(complaint.get("ctx") or {}).get("at", ()))


def first_problem(error: ValidationError) -> WarploomError:
    """The first complaint of pydantic as one of our errors."""
    first = error.errors(include_url=False)[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    kind = UnfitPair if first["type"] == UnfitPair.code else InvalidInput
    field = pointer(location(first)) or "/"
    value = first.get("input")
    shown = value if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return kind(f"{field}: {message}", field=field, rule=str(first["type"]), value=shown)


class Dimension(Config):
    """One searched field."""

    type: Literal["uniform", "loguniform", "randint", "choice"]
    low: float | None = None
    high: float | None = None
    values: tuple[Any, ...] | None = Field(None, min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _complete(self) -> Dimension:
        if self.type == "choice":
            if self.values is None:
                raise ValueError("choice needs 'values'")
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"{self.type} needs 'low' below 'high', got {self.low} and {self.high}")
        if self.type == "loguniform" and self.low <= 0:
            raise ValueError(f"loguniform needs 'low' above 0, got {self.low}")
        return self


class SweepSpec(Config):
    """A search over fields of a job spec; `space` maps dotted paths (`algorithm.inner_lr`) to dimensions."""

    name: str | None = Field(None, pattern=NAME_PATTERN, description="name of the model made from the best trial")
    metadata: Metadata = Field({}, exclude=True, description="your own words about the sweep; can be changed later")
    job: JobSpec
    space: dict[str, Dimension] = Field(min_length=1, max_length=64)
    metric: Literal["accuracy", "loss"] = "loss"
    mode: Literal["min", "max"] = "min"
    search: Literal["optuna", "random"] = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    num_samples: int = Field(8, ge=1, le=10_000)
    max_concurrent: int = Field(2, ge=1, le=1024)
    grace_evaluations: int = Field(1, ge=1, le=1000, description="evaluations before ASHA may stop a trial")
    time_budget_s: float | None = Field(None, gt=0, le=30 * 86400)
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _paths_exist(self) -> SweepSpec:
        if self.job.from_checkpoint is not None:
            raise ValueError("job.from_checkpoint: trials of a sweep begin anew; leave it out")
        if self.metric == "accuracy" and self.job.task.kind != "classification":
            raise ValueError("metric 'accuracy' needs a classification task; use 'loss'")
        document = self.job.to_json()
        for path, dimension in self.space.items():
            set_path(document, path, (dimension.values or (dimension.low,))[0], dry=True)
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with every default written out."""
        return self.model_dump(mode="json")

    def trial(self, values: dict[str, Any]) -> JobSpec:
        """The job spec of the trial that has `values` at the searched paths."""
        document = self.job.to_json()
        for path, value in values.items():
            set_path(document, path, value)
        return JobSpec.parse(document)


def set_path(document: dict[str, Any], path: str, value: Any, *, dry: bool = False) -> None:
    """Put `value` at the dotted `path` of `document`, in place; with `dry`, only check that the path exists."""
    *parents, leaf = path.split(".")
    node: Any = document
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node or isinstance(node[leaf], dict):
        raise ValueError(f"space: the job spec has no field {path!r}")
    if not dry:
        node[leaf] = value
