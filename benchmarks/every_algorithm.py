"""Every algorithm as a distributed job of a running service, and its model behind the adaptation endpoint.

    warploom up &
    python benchmarks/every_algorithm.py [URL KEY]     # default: those of the local stack

For each algorithm: two rollouts, three rounds, on a family and a net that fit; then labelled examples of a new task.
Prints a line each, and ends with 1 if any job failed.
"""

from __future__ import annotations

import sys
from typing import Any

from warploom.client import Client
from warploom.records import Job
from warploom.registry import ALGORITHMS
from warploom.spec import JobSpec
from warploom.tasks.base import TaskFamily
from warploom.types import TaskRef

GLYPHS = {"name": "glyphs", "ways": 3, "shots": 3, "queries": 2, "image_size": 16, "alphabets": 4}
FAMILIES: dict[str, Any] = {"multi-head": GLYPHS, "anil": GLYPHS, "warpgrad-continual": "continual-sine"}
NETS: dict[str, Any] = {
    "sinusoid": {"name": "mlp", "hidden": [16]},
    "continual-sine": {"name": "mlp", "hidden": [16]},
    "glyphs": {"name": "conv4", "layers": 2, "filters": 4},
}


def document(algorithm: str) -> dict[str, Any]:
    """A small job of the algorithm."""
    task = FAMILIES.get(algorithm, "sinusoid")
    family = task if isinstance(task, str) else task["name"]
    net = dict(NETS[family])
    if algorithm.startswith("warpgrad"):
        net["name"] = f"warp_{net['name']}"
    return {
        "name": f"every-{algorithm}".replace("+", "p"),
        "algorithm": {"name": algorithm, "inner_steps": 4, "inner_lr": 0.01},
        "task": task,
        "model": net,
        "training": {"rounds": 3, "meta_batch": 4, "unit": 2, "rollouts": 2},
        "evaluation": {"every": 3, "tasks": 4},
    }


def family_of(spec: JobSpec) -> TaskFamily[Any]:
    """The task family of a job, for examples to adapt to."""
    from warploom.build import build_family

    return build_family(spec.task)


def try_one(client: Client, job: Job, spec: JobSpec) -> str:
    """Wait for a job, adapt its model to a held-out task; a sentence about both."""
    done = client.wait(job.id, 300)
    if done.state != "succeeded" or done.model is None:
        return f"FAILED: {done.error.message if done.error else done.state}"
    tasks = family_of(spec).sample([TaskRef("test", 0, 0)])
    answer = client.adapt(done.model, tasks.support_x[0].numpy(), tasks.support_y[0].numpy(), tasks.query_x[0].numpy())
    loss = [round(value, 4) for value in (answer.losses[0], answer.losses[-1])]
    return f"{done.progress.meta_step} rounds; adapted, support loss {loss[0]} -> {loss[1]}"


def main() -> int:
    """All algorithms, two jobs at a time."""
    client = Client(*sys.argv[1:3]) if len(sys.argv) > 2 else Client()
    failed = 0
    names = list(ALGORITHMS)
    with client:
        for start in range(0, len(names), 2):
            pair = [(name, JobSpec.parse(document(name))) for name in names[start : start + 2]]
            jobs = [(name, spec, client.submit(spec)) for name, spec in pair]
            for name, spec, job in jobs:
                said = try_one(client, job, spec)
                failed += said.startswith("FAILED")
                pair_name = f"{spec.task.name}/{spec.model.name}"
                sys.stdout.write(f"{name:20} {pair_name:25} {said}\n")
                sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
