"""Time and memory of one meta-gradient against the number of inner steps."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Experiment, Mean, Means, Measure, Outcome, Say, Size, Verdict
from warploom.reproduce.figures import lines

ALGORITHMS: dict[str, dict[str, Any]] = {
    "maml": {"name": "maml"},
    "a-maml": {"name": "a-maml"},
    "imaml": {"name": "imaml"},
    "reptile": {"name": "reptile"},
    "warpgrad-online": {"name": "warpgrad-online"},
    "warpgrad": {"name": "warpgrad"},
}
STEPS: dict[Size, tuple[int, ...]] = {
    "tiny": (1, 20),
    "cpu": (1, 10, 50, 100, 200, 500),
    "paper": (1, 10, 50, 100, 200, 500),
}


class Memory(Experiment):
    """Each point in a fresh process: its peak memory less that of the same process after one inner step."""

    name = "memory"
    title = "Memory and time of one meta-gradient against inner steps"
    source = "Rajeswaran et al., NeurIPS 2019, Figure 2; Li et al., AISTATS 2023; Flennerhag et al., ICLR 2020"

    def default_seeds(self, size: Size) -> int:
        """Repetitions of each measurement."""
        return 1 if size == "tiny" else 3

    def measures(self, size: Size) -> Sequence[Measure]:  # noqa: ARG002
        """Lower is better for both."""
        return [Measure("MiB", "", better="lower"), Measure("seconds", "", better="lower")]

    def run(self, size: Size, seeds: int, out: Path, say: Say) -> Outcome:
        """Measure every algorithm at every number of steps, one process at a time."""
        started = time.perf_counter()
        runs: list[dict[str, Any]] = []
        for name, algorithm in ALGORITHMS.items():
            for steps in STEPS[size]:
                for seed in range(seeds):
                    measure = measure_here if size == "tiny" else _in_a_process
                    found = measure(_document(size, algorithm, steps), seed)
                    runs.append({"key": f"{name} | {steps}", "seed": seed, **found})
                say(f"{name}, {steps} steps: {runs[-1]['mib']:.1f} MiB, {runs[-1]['seconds']:.3f} s")
        means = _means(runs)
        return Outcome(
            name=self.name,
            title=self.title,
            source=self.source,
            size=size,
            seeds=seeds,
            means=means,
            paper={},
            verdicts=[] if size == "tiny" else _verdicts(means),
            runs=runs,
            notes=(
                "One task of the sine family with 256 support points and a net of 1-128-128-128-1, on the CPU. Memory "
                "is the process's peak while it rolls out and computes the meta-gradient, above what the process held "
                "before. `warpgrad` keeps the points of the path for replay; `warpgrad-online` keeps none."
            ),
            figures=self._draw(means, out),
            seconds=time.perf_counter() - started,
        )

    def _draw(self, means: Means, out: Path) -> list[Path]:
        paths = []
        for measure, what, unit in (("MiB", "Memory", "peak memory [MiB]"), ("seconds", "Time", "seconds")):
            series: dict[str, list[tuple[float, float, float]]] = {}
            for key, row in means.items():
                name, steps = key.split(" | ")
                series.setdefault(name, []).append((float(steps), row[measure].value, row[measure].half))
            stem = "memory" if measure == "MiB" else "memory-time"
            labels = ("inner steps", unit)
            title = f"{what} of one meta-gradient against inner steps"
            paths.append(lines(title, series, labels, out / f"{stem}.png", log="" if measure == "MiB" else "xy"))
        return paths


def _document(size: Size, algorithm: Mapping[str, Any], steps: int) -> dict[str, Any]:
    warped = algorithm["name"].startswith("warpgrad")
    hidden = [16, 16] if size == "tiny" else [128, 128, 128]
    return {
        "algorithm": {**algorithm, "inner_steps": steps, "inner_lr": 0.001},
        "task": {"name": "sinusoid", "shots": 256, "queries": 256},
        "model": {"name": "warp_mlp" if warped else "mlp", "hidden": hidden, "activation": "tanh"},
    }


def _in_a_process(document: Mapping[str, Any], seed: int) -> dict[str, float]:
    """One measurement by `python -m warploom.reproduce.memory`, on one core, after a warm-up of one inner step."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "warploom.reproduce.memory", json.dumps(document), str(seed)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_here(document: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Peak memory (MiB above the warmed-up process) and seconds of one rollout and meta-gradient in this process."""
    from warploom.build import build
    from warploom.spec import JobSpec
    from warploom.types import TaskRef

    def once(steps: int) -> float:
        options = {**document["algorithm"], "inner_steps": steps}
        algorithm = build(JobSpec.parse({**document, "algorithm": options}))
        meta = algorithm.init(seed)
        tasks = algorithm.family.sample([TaskRef("train", 0, seed)])
        begun = time.perf_counter()
        for batch in list(algorithm.minibatches(algorithm.rollout(meta, tasks, seeds=[seed]), seed=seed))[-2:]:
            algorithm.meta_gradient(meta, batch, seed=seed)
        return time.perf_counter() - begun

    once(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = once(document["algorithm"]["inner_steps"])
    return {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "seconds": seconds}


def _means(runs: Sequence[Mapping[str, Any]]) -> Means:
    found: Means = {}
    for key in dict.fromkeys(run["key"] for run in runs):
        own = [run for run in runs if run["key"] == key]
        found[key] = {
            "MiB": Mean.of([run["mib"] for run in own]),
            "seconds": Mean.of([run["seconds"] for run in own]),
        }
    return found


def _verdicts(means: Means) -> list[Verdict]:
    def growth(name: str) -> float:
        return means[f"{name} | 500"]["MiB"].value - means[f"{name} | 1"]["MiB"].value

    linear = growth("maml")
    half = means["maml | 200"]["MiB"].value / max(means["maml | 500"]["MiB"].value, 1e-9)
    verdicts = [Verdict("MAML's memory grows linearly with the inner steps", 0.3 < half < 0.5)]
    verdicts += [
        Verdict(f"{name} is flat (less than 3 % of MAML's growth)", growth(name) < 0.03 * linear)
        for name in ("imaml", "reptile", "warpgrad-online")
    ]
    verdicts += [
        Verdict(f"{name} is nearly flat: it keeps states only (less than a quarter)", growth(name) < 0.25 * linear)
        for name in ("a-maml", "warpgrad")
    ]
    return verdicts


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_here(json.loads(sys.argv[1]), int(sys.argv[2]))) + "\n")
