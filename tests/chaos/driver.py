"""Jobs under faults: a quiet run, then the same jobs while parts are killed at random, then what must hold.

The schedule of faults comes from one seed. `Drill(home, Plan(jobs=20, faults=100, seed=7)).run()` gives a `Report`;
`make soak` is this from the command line.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from service.connection import Connections, connect
from service.events import EventLog
from service.jobs import JobStore
from service.models import ModelStore
from service.settings import Settings
from tests.chaos.faults import FAULTS, Disk, Fault, Faults
from tests.chaos.stack import Victim
from tests.conftest import leaked_keys
from tests.support.waiting import TimedOut, wait_until
from warploom.codec import unpack_model
from warploom.errors import Unavailable
from warploom.records import FINAL_STATES, Event, Job
from warploom.types import Tensors

TICK_S = 0.2
AT_MOST_S = 60.0
GONE_S = 20.0
UNDO_S = 60.0
IN_VAIN = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a drill does.

    Args:
        jobs: how many are submitted.
        faults: how many things go wrong meanwhile.
        seed: of the schedule.
        rounds: of each job.
        at_once: jobs that are unfinished at a time.
        gap_s: least and most seconds between two faults; the later waits besides until a job got on since the earlier,
            but not for ever, so that a slow machine is not hit only while everything starts.
        minutes: all must be over by then.
        kinds: faults to choose from.
        in_turn: take them in their order and not by chance; whom they hit stays chance.
        supervisors: how many there are, each with a Ray of its own.
        shards: replay servers; one that is killed comes back empty, and the others keep what they have.
        sorts: how many sorts of jobs take turns, 1 to 3.
        asynchronous: every so many-th job is asynchronous, 0 for none.
    """

    jobs: int = 20
    faults: int = 100
    seed: int = 0
    rounds: int = 1000
    at_once: int = 4
    gap_s: tuple[float, float] = (2.0, 10.0)
    minutes: float = 90.0
    kinds: tuple[str, ...] = FAULTS
    in_turn: bool = False
    supervisors: int = 2
    shards: int = 1
    sorts: int = 3
    asynchronous: int = 4


@dataclass
class Report:
    """What came out.

    Args:
        broken: what did not hold; empty is good.
        recoveries: seconds until each fault was over, by its name.
        jobs: the final records.
        done: faults in the order in which they were done.
        quiet_s, chaos_s: seconds of the two runs.
    """

    broken: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    jobs: list[Job] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    quiet_s: float = 0.0
    chaos_s: float = 0.0


def document(plan: Plan, number: int) -> dict[str, Any]:
    """The job with this number: up to three sorts take turns, and some of them are asynchronous."""
    mode = "async" if plan.asynchronous and number % plan.asynchronous == plan.asynchronous - 1 else "sync"
    warp = {"name": "warpgrad", "outer": "adam", "warp_lr": 3e-3, "init_lr": 3e-3, "points_per_update": 8}
    sorts = (
        (warp, "warp_mlp"),
        ({"name": "maml", "outer": "adam", "outer_lr": 1e-3}, "mlp"),
        ({"name": "reptile", "outer": "sgd"}, "mlp"),
    )
    algorithm, model = sorts[number % plan.sorts]
    return {
        "algorithm": {**algorithm, "inner_lr": 0.01, "inner_steps": 3},
        "task": "sinusoid",
        "model": {"name": model, "hidden": [8]},
        "training": {
            "mode": mode,
            "rounds": plan.rounds,
            "meta_batch": 4,
            "unit": 2,
            "rollouts": 1,
            "checkpoint_every": 5,
            "schedule": "cosine",
            "max_retries": 100,
        },
        "evaluation": {"every": max(plan.rounds // 3, 1), "tasks": 4},
        "resources": {"learner_threads": 1},
    }


class Drill:
    """One drill over a stack of its own.

    Args:
        home: an empty folder.
        plan: what to do.
        say: told what happens.
    """

    def __init__(self, home: Path, plan: Plan, say: Any = lambda line: None) -> None:
        self._home, self._plan, self._say = home, plan, say
        self._chance = random.Random(plan.seed)
        self._report = Report()
        self._ids: list[str] = []
        self._open: list[Fault] = []
        self._drawn = 0
        self._in_vain: Counter[str] = Counter()
        self._undo: list[tuple[float, Any]] = []

    def run(self) -> Report:
        """The whole drill; the stack is gone afterwards."""
        disk = Disk(self._home / "disk")
        settings = {
            "lease_s": "5",
            "heartbeat_s": "1",
            "adapters": "1",
            "jobs_at_once": str(self._plan.at_once),
            "checkpoint_url": str(disk.path),
        }
        try:
            with Victim(self._home / "home", self._plan.supervisors, self._plan.shards, **settings) as victim:
                self._stores(victim)
                try:
                    self._drill(victim, disk)
                finally:
                    self._connections.close()
            self._nobody_stays(victim)
        finally:
            disk.remove()
        return self._report

    def _stores(self, victim: Victim) -> None:
        self._connections: Connections = connect(
            Settings(state_url=victim.urls["state"], replay_url=victim.urls["replay"])
        )
        self._jobs, self._events = JobStore(self._connections), EventLog(self._connections)
        self._models = ModelStore(self._connections)

    def _drill(self, victim: Victim, disk: Disk) -> None:
        started = time.monotonic()
        oracle = self._quiet(victim)
        self._report.quiet_s = time.monotonic() - started
        self._say(f"quiet run: {self._report.quiet_s:.0f} s")
        started = time.monotonic()
        self._chaos(victim, Faults(victim, disk, self._chance, self._rounds))
        self._report.chaos_s = time.monotonic() - started
        self._say(f"chaos: {self._report.chaos_s:.0f} s")
        self._check(oracle)

    def _quiet(self, victim: Victim) -> dict[int, Tensors]:
        """The weights of one undisturbed synchronous job of each sort, which is the warm-up too."""
        numbers = [n for n in range(self._plan.jobs) if document(self._plan, n)["training"]["mode"] == "sync"]
        first = {n % self._plan.sorts: n for n in reversed(numbers)}
        ids = {sort: victim.submit(document(self._plan, n), f"quiet-{sort}") for sort, n in first.items()}
        wait_until(lambda: all(self._final(job_id) for job_id in ids.values()), self._plan.minutes * 60, what="quiet")
        return {sort: self._weights(self._jobs.get(job_id)) for sort, job_id in ids.items()}

    def _chaos(self, victim: Victim, faults: Faults) -> None:
        due, next_at, moved = self._plan.faults, time.monotonic(), faults.moves()

        def over() -> bool:
            """What is due now, and whether all is done."""
            nonlocal due, next_at, moved
            if not victim.alive():
                raise RuntimeError((victim.home / "stack.log").read_text()[-4000:])
            if self._wanted(due):
                self._ids.append(victim.submit(document(self._plan, len(self._ids)), f"chaos-{len(self._ids)}"))
            now = time.monotonic()
            if due and now > next_at and (now > next_at + AT_MOST_S or moved()):
                due -= self._one(faults)
                next_at, moved = now + self._chance.uniform(*self._plan.gap_s), faults.moves()
            self._tend()
            return not (due or len(self._ids) < self._plan.jobs or self._unfinished())

        try:
            wait_until(over, self._plan.minutes * 60, what="the end", step_s=TICK_S)
        except TimedOut:
            self._report.broken.append(f"not over in {self._plan.minutes:g} minutes; {due} faults were to come")
        wait_until(self._undone, UNDO_S, what="the end of the last faults", step_s=TICK_S)

    def _undone(self) -> bool:
        self._tend()
        return not self._undo

    def _wanted(self, due: int) -> bool:
        """Whether it is time for the next job: they are spread over the faults, and somebody always works."""
        if len(self._ids) >= self._plan.jobs:
            return False
        working = len(self._unfinished())
        share = len(self._report.done) * self._plan.jobs // max(self._plan.faults, 1)
        return not working or (working < self._plan.at_once and (not due or len(self._ids) <= share))

    def _one(self, faults: Faults) -> bool:
        """One fault; those that find nobody are drawn anew."""
        for _ in range(20):
            name = self._next()
            fault = faults.do(name)
            if fault is not None:
                self._say(f"{len(self._report.done) + 1:3d} {name}")
                self._report.done.append(name)
                self._open.append(fault)
                if fault.undo:
                    self._undo.append(fault.undo)
                return True
            self._in_vain[name] += 1
        return False

    def _next(self) -> str:
        self._drawn += 1
        kinds = self._plan.kinds
        return kinds[(self._drawn - 1) % len(kinds)] if self._plan.in_turn else self._chance.choice(kinds)

    def _tend(self) -> None:
        now = time.monotonic()
        for _, undo in [entry for entry in self._undo if entry[0] <= now]:
            undo()
            self._undo = [entry for entry in self._undo if entry[1] is not undo]
        for fault in [fault for fault in self._open if fault.over()]:
            self._open.remove(fault)
            self._report.recoveries[fault.name].append(time.monotonic() - fault.at)

    def _final(self, job_id: str) -> bool:
        try:
            return self._jobs.get(job_id).state in FINAL_STATES
        except Unavailable:
            return False

    def _unfinished(self) -> list[str]:
        return [job_id for job_id in self._ids if not self._final(job_id)]

    def _rounds(self) -> dict[str, int]:
        """The round of each unfinished job; none of a job whose record cannot be read now."""
        rounds = {}
        for job_id in self._unfinished():
            with contextlib.suppress(Unavailable):
                rounds[job_id] = self._jobs.get(job_id).progress.meta_step
        return rounds

    def _weights(self, job: Job) -> Tensors:
        assert job.state == "succeeded", (job.id, job.state, job.error)
        assert job.model is not None
        return unpack_model(self._models.blob(job.model, 1))[1].params

    def _check(self, oracle: dict[int, Tensors]) -> None:
        for number, job_id in enumerate(self._ids):
            job = self._jobs.get(job_id)
            self._report.jobs.append(job)
            if job.state != "succeeded":
                self._report.broken.append(f"{job_id} {job.state}: {job.error}")
                continue
            right = oracle[number % self._plan.sorts]
            if job.spec["training"]["mode"] == "sync" and not _equal(self._weights(job), right):
                self._report.broken.append(f"{job_id}: other weights than in the quiet run")
            events = self._events.list(job_id, limit=10_000)
            twice = [event.data["meta_step"] for event in events if event.data.get("repeats")]
            self._report.broken += [f"{job_id}: a trajectory counted twice in rounds {twice}"] if twice else []
            self._report.broken += [f"{job_id}: {what}" for what in wrong_versions(events, self._plan.rounds)]
        never = [name for name, times in self._in_vain.items() if times >= IN_VAIN and name not in self._report.done]
        self._report.broken += [f"{name} was drawn time and again, and hit nobody" for name in never]
        leaks = leaked_keys(self._connections)
        self._report.broken += [f"keys without a lifetime: {leaks}"] if leaks else []

    def _nobody_stays(self, victim: Victim) -> None:
        with contextlib.suppress(TimedOut):
            wait_until(lambda: not victim.leftovers(), GONE_S, step_s=TICK_S)
        self._report.broken += [f"a process stays: {line}" for line in victim.leftovers()]


def wrong_versions(events: list[Event], rounds: int) -> list[str]:
    """What is wrong with the order of a job's rounds.

    Within a generation every round follows the one before; a generation begins at most one round after the last of
    all before it, and no round is left out. An event may be told twice when the answer to the first try was lost.

    Example:
        >>> told = [("state", {"state": "running"}), ("round", {"meta_step": 1}), ("round", {"meta_step": 3})]
        >>> wrong_versions([Event(id=str(i), at=0, kind=k, data=d) for i, (k, d) in enumerate(told)], 3)
        ['round 3 after 1 within a generation', 'rounds were left out: [2]']
    """
    wrong: list[str] = []
    last, seen = None, set()
    for event in events:
        if event.kind == "state" and event.data.get("state") == "running":
            last = None
        if event.kind != "round":
            continue
        step = event.data["meta_step"]
        if last is None and step > max(seen, default=0) + 1:
            wrong.append(f"a generation began at round {step} after {max(seen, default=0)}")
        if last is not None and step not in (last, last + 1):
            wrong.append(f"round {step} after {last} within a generation")
        seen.add(step)
        last = step
    missing = sorted(set(range(1, rounds + 1)) - seen)
    return wrong + ([f"rounds were left out: {missing}"] if missing else [])


def _equal(one: Tensors, other: Tensors) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def table(report: Report) -> str:
    """Recovery times as Markdown: how often, median, worst, in seconds."""
    lines = ["| fault | times | median, s | worst, s |", "|---|---|---|---|"]
    for name, times in sorted(report.recoveries.items()):
        ordered = sorted(times)
        middle = ordered[len(ordered) // 2]
        lines.append(f"| {name} | {len(times)} | {middle:.1f} | {ordered[-1]:.1f} |")
    counts = {name: len(list(same)) for name, same in itertools.groupby(sorted(report.done))}
    lost = {name: n - len(report.recoveries.get(name, ())) for name, n in counts.items()}
    if any(lost.values()):
        lines.append("")
        lines.append(f"Not timed, because the work ended first: { ({k: v for k, v in lost.items() if v}) }")
    return "\n".join(lines)
