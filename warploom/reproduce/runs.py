"""Training the arms of an experiment: each run in a process and on a core of its own, finished ones kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Arm, Measure, Say


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    key: str
    seed: int
    spec: Mapping[str, Any]
    measures: tuple[Measure, ...]
    activations: bool = False
    test_task: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """A name for its result; any change of the spec or of what is measured gives another."""
        parts = [self.key, self.seed, self.spec, [asdict(measure) for measure in self.measures]]
        parts += [self.activations] if self.activations else []
        parts += [self.test_task] if self.test_task else []
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def train_and_measure(run: Run) -> dict[str, Any]:
    """Train one arm in this process and measure it.

    Returns:
        `key`, `seed`, `measures` by name, `curve` (evaluations during training), `support_loss` by round, `seconds`,
        `cpu_s` (of processor time), `peak_mib` (of the process); with `activations`, those around the warp layers.
    """
    from warploom.build import build
    from warploom.evaluation import evaluate, held_out
    from warploom.local import train
    from warploom.spec import JobSpec
    from warploom.types import TaskRef

    started, worked = time.perf_counter(), time.process_time()
    document = json.loads(json.dumps(run.spec))
    document.setdefault("training", {})["seed"] = run.seed
    spec = JobSpec.parse(document)
    support_loss: list[float] = []

    def listen(kind: str, data: dict[str, Any]) -> None:
        if kind == "round" and "support_loss" in data:
            support_loss.append(data["support_loss"])

    result = train(spec, listen)
    trained = time.perf_counter() - started
    found: dict[str, dict[str, float]] = {}
    measures: dict[str, float] = {}
    for measure in run.measures:
        how = json.dumps([measure.steps, measure.tasks, measure.adapt], sort_keys=True)
        if how not in found:
            test = {**document, "task": {**spec.to_json()["task"], **run.test_task}} if run.test_task else document
            measured = JobSpec.parse(test if measure.adapt is None else {**test, "algorithm": measure.adapt})
            refs = held_out(measured)
            if measure.tasks is not None:
                refs = [TaskRef(spec.evaluation.split, i, run.seed) for i in range(measure.tasks)]
            found[how] = evaluate(build(measured), result.meta, refs, steps=measure.steps, seed=run.seed)
        measures[measure.name] = found[how].get(measure.metric, float("nan"))
    extra: dict[str, Any] = {}
    if run.activations:
        from warploom.reproduce.activations import around_warps

        extra["activations"] = around_warps(build(spec), result.meta, held_out(spec))
    return {
        **extra,
        "key": run.key,
        "seed": run.seed,
        "measures": measures,
        "curve": result.curve,
        "support_loss": support_loss,
        "train_s": trained,
        "seconds": time.perf_counter() - started,
        "cpu_s": time.process_time() - worked,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_all(
    arms: Sequence[Arm], measures: Sequence[Measure], seeds: int, out: Path, say: Say, *, here: bool = False
) -> list[dict[str, Any]]:
    """All arms with all seeds, as many at a time as there are cores; with `here`, one by one in this process.

    A finished run is written to `out/runs` and not repeated, so that an interrupted experiment goes on.

    Raises:
        Exception: that of the first run that failed; the finished ones stay on disk.
    """
    folder = out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    todo: list[Run] = []
    done: list[dict[str, Any]] = []
    for seed in range(seeds):
        for arm in arms:
            run = Run(arm.key, seed, arm.spec, tuple(measures), arm.activations, arm.test_task)
            path = folder / f"{run.digest()}.json"
            if path.is_file():
                done.append(json.loads(path.read_text()))
            else:
                todo.append(run)
    if done:
        say(f"{len(done)} runs were there already")

    def finish(run: Run, result: dict[str, Any]) -> None:
        done.append(result)
        _write(folder / f"{run.digest()}.json", result)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in result["measures"].items())
        count = f"{len(done)}/{len(arms) * seeds}"
        say(f"{count}  {result['key']}, seed {result['seed']}: {shown}  ({result['seconds']:.0f} s)")

    if here or not todo:
        for run in todo:
            finish(run, train_and_measure(run))
        return done
    workers = min(len(todo), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        waiting = {pool.submit(train_and_measure, run): run for run in todo}
        try:
            for future in as_completed(waiting):
                finish(waiting[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def _begin() -> None:
    from warploom.threads import use_threads

    use_threads(1)
    threading.Thread(target=_leave_with, args=(parent_process(),), daemon=True).start()


def _leave_with(parent: BaseProcess | None) -> None:
    # A parent that is killed cannot say so; without this the run would go on to its end for nobody.
    if parent is not None:
        parent.join()
        os._exit(1)


def _write(path: Path, result: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result))
    part.replace(path)
