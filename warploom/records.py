"""What the service says back: the objects of the API, shared by server and client.

An unknown field or a state that this version does not know never breaks a client: fields are ignored, states are
plain strings.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

QUEUED, RUNNING, PAUSING, PAUSED, CANCELLING = "queued", "running", "pausing", "paused", "cancelling"
STOPPING = "stopping"  # of sweeps
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
HELD_STATES = frozenset({RUNNING, PAUSING, STOPPING, CANCELLING})
FINAL_STATES = frozenset({SUCCEEDED, FAILED, CANCELLED})


class Record(BaseModel):
    """Frozen on this side, open to fields of later versions."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Failure(Record):
    """Why a job or a sweep failed. `category`: user, system or capacity."""

    code: str
    message: str
    category: str = "system"
    retryable: bool = False


class Transition(Record):
    """One change of state, or of phase within a state, with its time in seconds since the epoch."""

    state: str
    at: float
    phase: str | None = None


class Progress(Record):
    """How far a job is. Times in seconds. `waiting` says what a running job waits for, if it does."""

    meta_step: int = 0
    total: int = 0
    tasks_done: int = 0
    seconds_remaining: float | None = None
    heartbeat_at: float | None = None
    waiting: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)


class Job(Record):
    """A meta-training job.

    `spec` is complete: every default is written out. `retries` counts the runs of it that were lost, `lost_in_a_row`
    those since a run last came further than all before. While it is queued, `queue_position` counts from 1 and
    `queue_reason` says what it waits for.
    """

    id: str
    name: str
    tenant: str = "default"
    state: str
    phase: str | None = None
    spec: dict[str, Any]
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    generation: int = 0
    retries: int = 0
    lost_in_a_row: int = 0
    queue_position: int | None = None
    queue_reason: str | None = None
    progress: Progress = Progress()
    model: str | None = None
    error: Failure | None = None
    transitions: list[Transition] = Field(default_factory=list)
    forked_from: str | None = Field(None, description="id of the checkpoint that it began with")
    metadata: dict[str, str] = Field(default_factory=dict)


class Estimate(Record):
    """What a job would do and need, reckoned from its spec alone; bytes are of float32 numbers unless said otherwise.

    Counts are exact. Bytes are exact or, where the description says so, upper bounds; null where the spec does not
    say, and then `notes` tells why. Memory of the frameworks, of data and of activations is no part of it.
    """

    tasks: int = Field(description="training tasks that are adapted")
    inner_steps: int = Field(description="inner steps of training, over all tasks")
    evaluations: int = Field(description="at most; a version that is replaced while another is measured is skipped")
    evaluation_inner_steps: int = Field(description="inner steps of all evaluations, at most")
    parameters: int | None = Field(description="numbers in the model")
    adapted_parameters: int | None = Field(description="those of them that a task moves")
    meta_state_bytes: int | None = Field(
        description="what is learned: the model and what is learned beside it, without running statistics"
    )
    learner_bytes: int | None = Field(description="the meta-state with the outer optimiser's moments, at most")
    trajectory_bytes: int | None = Field(description="what one task puts into the buffer, at most")
    replay_bytes: int | None = Field(description="most that the buffer holds at once, within its budget")
    replay_bytes_written: int | None = Field(description="all that goes into the buffer over the job, at most")
    notes: list[str] = Field(default_factory=list, description="what is left out, and what would not work")


class DryRun(Record):
    """A job that was checked and not made: its complete spec, and an estimate."""

    dry_run: bool = True
    spec: dict[str, Any]
    estimate: Estimate


class CheckpointInfo(Record):
    """A stored state of a job's learner; `bytes` and `sha256` are those of the meta-state that can be downloaded."""

    id: str
    job: str
    step: int
    created_at: float
    bytes: int
    sha256: str
    metrics: dict[str, float] = Field(default_factory=dict, description="of the evaluation at this step, if any")


class Lineage(Record):
    """Where a job comes from and what ran it: enough to do it again."""

    job: str
    sent: Any = Field(None, description="the spec as it was sent")
    spec: dict[str, Any] = Field(description="the spec with every default written out")
    seed: int
    versions: dict[str, str] = Field(description="python, torch, ray and warploom of the last run")
    forked_from: str | None = None
    model: str | None = None


class Event(Record):
    """One line of a job's history. `id` orders events and resumes a stream."""

    id: str
    at: float
    kind: str
    data: dict[str, Any] = Field(default_factory=dict)


class LogLine(Record):
    """What a worker of a job said. `generation` is that of its run."""

    id: str
    at: float
    worker: str
    generation: int
    level: str
    message: str


# Said in words that every reader of JSON schemas knows.
_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


class Metrics(Record):
    """Curves by name: pairs of a round and a value."""

    curves: dict[str, list[Annotated[tuple[int, float], WithJsonSchema(_PAIR)]]] = Field(default_factory=dict)


class Model(Record):
    """A trained model that can adapt to new tasks."""

    name: str
    version: int
    created_at: float
    job: str | None = None
    sweep: str | None = None
    kind: str
    input_shape: list[int]
    outputs: int
    parameters: int
    bytes: int
    sha256: str
    default_steps: int
    default_lr: float
    metrics: dict[str, float] = Field(default_factory=dict)
    spec: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict, description="of the model, the same for all versions")
    aliases: list[str] = Field(default_factory=list, description="those that stand for this version")


class Webhook(Record):
    """An address that is told when jobs end. `disabled_at`: since it answered that it is gone (410).

    After a rotation messages are signed with the secret before too, until `old_until`.
    """

    id: str
    tenant: str = "default"
    url: str
    events: list[str]
    description: str = ""
    created_at: float
    disabled_at: float | None = None
    old_until: float | None = None


class NewWebhook(Webhook):
    """A webhook that was just made or rotated, with the secret that its messages are signed with; shown this once."""

    secret: str


class Attempt(Record):
    """One try to deliver a message: the status that came back, or what went wrong."""

    at: float
    seconds: float
    status: int | None = None
    error: str | None = None


class Delivery(Record):
    """A message to a webhook. `state`: pending, delivered, failed; `id` is its `webhook-id` header."""

    id: str
    webhook: str
    event: str
    state: str
    created_at: float
    next_at: float | None = None
    attempts: list[Attempt] = Field(default_factory=list)


class Prediction(Record):
    """What an adapted model says of the queries, in their order.

    `outputs` are class probabilities (classification) or values (regression); `labels` is their argmax, `confidence`
    their maximum.
    """

    labels: list[int] | None = None
    confidence: list[float] | None = None
    outputs: list[list[float]]


class Adaptation(Record):
    """A model adapted to one task; kept on the server until `expires_at`, or until newer ones need the room.

    `warnings` say why it may be worse than hoped.
    """

    id: str
    state: str = "ready"
    model: str
    version: int
    steps: int
    lr: float
    losses: list[float] = Field(description="support loss before each step and after the last")
    support_accuracy: float | None = None
    seed: int = 0
    warnings: list[str] = Field(default_factory=list)
    expires_at: float
    prediction: Prediction | None = None


class PendingAdaptation(Record):
    """An adaptation that takes longer: ask for it again under its id after `retry_in_seconds`."""

    id: str
    state: str = "pending"
    retry_in_seconds: float = 1.0


class Trial(Record):
    """One trial of a sweep; `curve` holds one row per evaluation.

    `state`: queued, running, paused, succeeded (all rounds), stopped (early, by the scheduler or with the
    sweep), failed.
    """

    id: str
    state: str
    parameters: dict[str, Any]
    curve: list[dict[str, float]] = Field(default_factory=list)
    best: float | None = None
    error: str | None = None


class Sweep(Record):
    """A search over the fields of a job spec. `retries` counts the runs of it that were lost."""

    id: str
    name: str
    tenant: str = "default"
    state: str
    spec: dict[str, Any]
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    generation: int = 0
    retries: int = 0
    trials: list[Trial] = Field(default_factory=list)
    best_trial: str | None = None
    model: str | None = None
    error: Failure | None = None
    transitions: list[Transition] = Field(default_factory=list)
    metadata: dict[str, str] = Field(default_factory=dict)


class ApiKey(Record):
    """What is known of an API key. Times in seconds since the epoch.

    `shown` is the key's beginning, which is no secret; `limits` are those in which it differs from the service's.
    After a rotation the key before works until `old_until`.
    """

    id: str
    name: str
    tenant: str
    scopes: list[str]
    shown: str | None = None
    limits: dict[str, int] = Field(default_factory=dict)
    created_at: float
    created_by: str | None = None
    used_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    rotated_at: float | None = None
    old_until: float | None = None


class NewApiKey(ApiKey):
    """A key that was made just now; `secret` is what to send, and is never shown again."""

    secret: str


class Identity(Record):
    """Whose key this is."""

    key: str
    name: str
    tenant: str
    scopes: list[str]
    expires_at: float | None = None


class LimitUse(Record):
    """One limit of a key; `reset_s`: seconds until nothing of it is used, where that is known."""

    limit: int
    used: int | None = None
    reset_s: float | None = None


class UsageDay(Record):
    """What a key used on one day (UTC). `tasks` are those of jobs that ended on it; `rows` of supports and queries."""

    date: str
    key: str
    requests: int = 0
    jobs: int = 0
    sweeps: int = 0
    tasks: int = 0
    adapt_calls: int = 0
    predict_calls: int = 0
    rows: int = 0
    bytes: int = 0


class AuditEntry(Record):
    """Who did what. `action` is method and route, `target` the object, `status` that of the answer."""

    id: str
    at: float
    key: str
    tenant: str
    action: str
    target: str = ""
    status: int
    request_id: str = ""
    address: str = ""


class CatalogEntry(Record):
    """One algorithm, task family or model, with the JSON schema of its options."""

    name: str
    summary: str
    source: str
    options: dict[str, Any]


class Catalog(Record):
    """All that a job may name."""

    algorithms: list[CatalogEntry]
    tasks: list[CatalogEntry]
    models: list[CatalogEntry]


Item = TypeVar("Item")


class Page(Record, Generic[Item]):
    """Part of a list; `has_more` says whether asking again with `after` = last id gives more."""

    data: list[Item]
    has_more: bool = False
