"""Adaptation under load: latency and requests a second, with micro-batches and without, against in-process calls.

    python benchmarks/adaptation.py [--seconds 4] [--rounds 3] [--minutes 12]
        [--clients 1 8 32 128] [--models sinusoid omniglot]

Two services start on free ports, one that batches and one that does not; they and the in-process calls take turns, so
that a noisy machine treats all alike. Every answer is compared with the in-process one. At last an adapter is killed
while the largest number of clients asks. Writes docs/results/adaptation.md and .json; ends with 1 if an answer was lost
or wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from adaptation_report import write
from load import Answer, Client, Load, Target, press
from stacks import Stack

from warploom.adaptation import ServedModel, Support
from warploom.build import build_family
from warploom.types import TaskRef

TASKS = 64
MODELS: dict[str, dict[str, Any]] = {
    "sinusoid": {
        "algorithm": {"name": "warpgrad", "inner_steps": 10, "inner_lr": 0.01},
        "task": {"name": "sinusoid", "shots": 10, "queries": 10},
        "model": "warp_mlp",
        "training": {"rounds": 2, "meta_batch": 4, "unit": 4, "rollouts": 1},
    },
    # Images of Omniglot's size, drawn and not downloaded; the net of the literature.
    "omniglot": {
        "algorithm": {"name": "none", "inner_steps": 5, "inner_lr": 0.1},
        "task": {"name": "glyphs", "ways": 5, "shots": 1, "queries": 2, "augment": False, "alphabets": 8, "hands": 4},
        "model": {"name": "warp_conv4", "filters": 64},
        "training": {"rounds": 0},
    },
}


class Case:
    """One model with its tasks and what it says of them in this process.

    Args:
        name: of the model.
        blob: the trained model, as the service gives it.
    """

    def __init__(self, name: str, blob: bytes) -> None:
        self.name, self.model = name, ServedModel.load(blob)
        spec = self.model.spec
        tasks = build_family(spec.task).sample([TaskRef("test", i, 0) for i in range(TASKS)])
        config = self.model.algorithm.config
        self._supports = [
            Support(x_S=x, y_S=y, x_Q=q, steps=config.inner_steps, lr=config.inner_lr, seed=0)
            for x, y, q in zip(tasks.support_x, tasks.support_y, tasks.query_x, strict=True)
        ]
        self.bodies = [
            {"support": {"x": s.x_S.tolist(), "y": s.y_S.tolist()}, "query": {"x": s.x_Q.tolist()}}
            for s in self._supports
        ]
        self._expected = [self.local(task) for task in range(TASKS)]

    def local(self, task: int) -> tuple[list[float], np.ndarray[Any, Any]]:
        """Losses and outputs of one task, adapted here."""
        answer = self.model.adapt([self._supports[task]])[0]
        return answer.losses, answer.outputs_Q.numpy()

    def fault(self, answer: Answer) -> str | None:
        """What is wrong with an answer; None when it is the in-process one up to round-off."""
        if answer.status != 200:
            return f"status {answer.status}: {answer.raw[:200]!r}"
        body = answer.body
        losses, outputs = self._expected[answer.task]
        found = np.asarray(body["prediction"]["outputs"])
        close = np.allclose(found, outputs, rtol=1e-3, atol=1e-4)
        return None if close and np.allclose(body["losses"], losses, rtol=1e-3, atol=1e-4) else "another answer"


class Bench:
    """All measurements, in turns.

    Args:
        stacks: `batched` and `alone`.
        seconds: of each measurement.
        until: after this moment (`time.perf_counter`) nothing is measured a second time.
    """

    def __init__(self, stacks: dict[str, Stack], seconds: float, until: float) -> None:
        self.stacks, self.seconds, self._until = stacks, seconds, until
        self.faults: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []

    def compare(self, case: Case, counts: list[int], rounds: int) -> None:
        """Every number of clients, with and without batching, `rounds` times in turn."""
        for stack in self.stacks.values():
            asyncio.run(press(self._target(stack, case), 4, 0.0, least=2))
        latency = self._latency(case)
        for clients in counts:
            loads: dict[str, list[Load]] = {name: [] for name in self.stacks}
            for turn, (name, stack) in itertools.product(range(rounds), self.stacks.items()):
                if turn and time.perf_counter() > self._until:
                    continue
                before = stack.cpu_s()
                load = asyncio.run(press(self._target(stack, case), clients, self.seconds))
                load.cpu_ms = {p: 1000 * (s - before[p]) / len(load.answers) for p, s in stack.cpu_s().items()}
                self._check(case, load.answers)
                loads[name].append(load)
            self.rows.append({"model": case.name, "clients": clients} | {n: _numbers(ls) for n, ls in loads.items()})
            _say(str(self.rows[-1]))
        self.rows.append({"model": case.name, "clients": 0} | latency)

    def _latency(self, case: Case) -> dict[str, Any]:
        """A lone client against in-process calls, request by request in turn."""

        async def pairs() -> list[tuple[float, float, float]]:
            found = []
            async with Client(self._target(self.stacks["batched"], case)) as client:
                for task in range(TASKS):
                    begin, cpu = time.perf_counter(), time.process_time()
                    case.local(task)
                    local, cpu = time.perf_counter() - begin, time.process_time() - cpu
                    answer = await client.ask(task)
                    self._check(case, [answer])
                    found.append((1e3 * local, 1e3 * answer.seconds, local / cpu))
            return found[4:]

        found = asyncio.run(pairs())
        row = {
            "in_process_ms": median(local for local, _, _ in found),
            "service_ms": median(remote for _, remote, _ in found),
            "added_ms": median(remote - local for local, remote, _ in found),
            "wall_over_cpu": median(share for _, _, share in found),
        }
        _say(f"{case.name}: {row}")
        return row

    def kill(self, case: Case, clients: int) -> dict[str, Any]:
        """The same load while the adapter is killed."""
        stack = self.stacks["batched"]

        async def both() -> Load:
            load = asyncio.create_task(press(self._target(stack, case), clients, 3 * self.seconds))
            await asyncio.sleep(self.seconds)
            stack.adapter().kill()
            return await load

        load = asyncio.run(both())
        before = self.faults.total()
        self._check(case, load.answers)
        row = {"model": case.name, **_numbers([load]), "clients": clients, "faults": self.faults.total() - before}
        row["longest_s"] = max(answer.seconds for answer in load.answers)
        _say(f"an adapter killed: {row}")
        return row

    def _target(self, stack: Stack, case: Case) -> Target:
        return Target(stack.url, stack.key, f"/v1/models/{case.name}/adapt", case.bodies)

    def _check(self, case: Case, answers: list[Answer]) -> None:
        for answer in answers:
            fault = case.fault(answer)
            if fault:
                self.faults[fault] += 1
                continue
            name = answer.body["id"]
            self.ids[name] += 1
            if self.ids[name] > 1:
                self.faults["an answer given twice"] += 1


def _numbers(loads: list[Load]) -> dict[str, Any]:
    """The median over rounds of each figure."""
    figures: dict[str, Callable[[Load], float]] = {
        "p50_ms": lambda load: load.percentile(0.5),
        "p95_ms": lambda load: load.percentile(0.95),
        "p99_ms": lambda load: load.percentile(0.99),
        "per_second": lambda load: load.per_second,
        "generator_ms": lambda load: load.generator_ms,
    }
    found: dict[str, Any] = {name: round(median(figure(load) for load in loads), 3) for name, figure in figures.items()}
    for part in loads[0].cpu_ms:
        found[f"{part}_ms"] = round(median(load.cpu_ms[part] for load in loads), 3)
    return found | {"requests": sum(len(load.answers) for load in loads), "rounds": len(loads)}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind, in turns")
    parser.add_argument("--minutes", type=float, default=12, help="after half of them rounds are left out")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that both services end too
    begin, busy = time.perf_counter(), psutil.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="warploom-bench-") as folder,
        Stack(Path(folder) / "batched", batch=None) as batched,
        Stack(Path(folder) / "alone", batch=1) as alone,
    ):
        bench = Bench({"batched": batched, "alone": alone}, given.seconds, begin + 30 * given.minutes)
        blobs = {name: [s.train(name, MODELS[name]) for s in (batched, alone)] for name in given.models}
        cases = [Case(name, both[0]) for name, both in blobs.items()]
        for case in cases:
            bench.compare(case, given.clients, given.rounds)
        killed = [bench.kill(case, max(given.clients)) for case in cases]
    facts = {
        "cores": len(os.sched_getaffinity(0)),
        "command": " ".join(["python", "benchmarks/adaptation.py", *sys.argv[1:]]),
        "load_average": busy,
        "seconds": time.perf_counter() - begin,
        "answers": bench.ids.total(),
        "faults": dict(bench.faults),
    }
    write(given.out, bench.rows, killed, facts)
    _say(str(facts))
    return 1 if bench.faults else 0


if __name__ == "__main__":
    sys.exit(main())
