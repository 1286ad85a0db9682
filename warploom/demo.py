"""What `warploom demo` measures: does meta-training make a model learn a new alphabet faster?

A WarpGrad job learns from generated alphabets. Then alphabets that it never saw go to the adaptation endpoint, and the
same ones to an untrained model with the same random initialisation and the same steps. No torch at import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warploom.client import Client

TASKS = 8
SEED = 2026
# One example per class: hard enough that an untrained net stays far behind after the same steps.
INNER = {"inner_lr": 0.3, "inner_steps": 10}
TASK: dict[str, Any] = {"name": "glyphs", "ways": 10, "shots": 1, "queries": 10, "image_size": 28}
MODEL: dict[str, Any] = {"name": "warp_conv4", "layers": 4, "filters": 16}

TRAINED: dict[str, Any] = {
    "name": "demo-warpgrad",
    "algorithm": {
        "name": "warpgrad",
        "outer": "sgd",
        "warp_lr": 0.1,
        "init_lr": 0.1,
        "record_every": 2,
        **INNER,
    },
    "task": TASK,
    "model": MODEL,
    "training": {"rounds": 40, "meta_batch": 4, "unit": 1, "rollouts": 2, "seed": 0, "checkpoint_every": 20},
    # Measured on the validation alphabets on the way, so that the test alphabets stay unseen until the end.
    "evaluation": {"every": 10, "tasks": 4, "split": "validation"},
}
UNTRAINED: dict[str, Any] = {
    "name": "demo-untrained",
    "algorithm": {"name": "none", **INNER},
    "task": TASK,
    "model": MODEL,
    "training": {"rounds": 0, "meta_batch": 4, "unit": 1, "rollouts": 1, "seed": 0},
    "evaluation": {"tasks": 4, "split": "validation"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """Accuracy on one new task's queries: of the trained model before and after adaptation, of the untrained after."""

    task: str
    before: float
    after: float
    untrained: float


def measure(client: Client, trained: str, untrained: str, task: Mapping[str, Any], count: int) -> Iterator[Row]:
    """One row for each of `count` test tasks that neither model has seen.

    Args:
        client: the service that serves both models.
        trained: name of the trained model.
        untrained: name of the model with the same initialisation and no training.
        task: the task family's configuration.
        count: how many tasks.
    """
    from warploom import registry
    from warploom.build import build_family
    from warploom.types import TaskRef

    family = build_family(registry.config_class("task", task["name"]).model_validate(dict(task)))  # type: ignore[arg-type]
    for index in range(count):
        data = family.sample([TaskRef("test", index, SEED)])
        support_x, support_y = data.support_x[0].numpy(), data.support_y[0].numpy()
        query_x, truth = data.query_x[0].numpy(), data.query_y[0].tolist()

        def accuracy(model: str, steps: int | None) -> float:
            answer = client.adapt(model, support_x, support_y, query_x, steps=steps, seed=SEED)  # noqa: B023
            labels = answer.prediction.labels if answer.prediction else None
            return _share(labels or [], truth)  # noqa: B023

        yield Row(f"alphabet {index + 1}", accuracy(trained, 0), accuracy(trained, None), accuracy(untrained, None))


def _share(labels: Sequence[int], truth: Sequence[int]) -> float:
    return sum(a == b for a, b in zip(labels, truth, strict=True)) / len(truth)


def mean(rows: Sequence[Row]) -> Row:
    """The mean over tasks."""
    count = len(rows)
    return Row(
        "mean",
        sum(row.before for row in rows) / count,
        sum(row.after for row in rows) / count,
        sum(row.untrained for row in rows) / count,
    )


def report(rows: Sequence[Row], seconds: float, job: Mapping[str, Any]) -> dict[str, Any]:
    """The result as JSON."""
    total = asdict(mean(rows))
    del total["task"]
    return {
        "tasks": [asdict(row) for row in rows],
        "mean": total,
        "seconds": round(seconds, 2),
        "job": dict(job),
    }
