"""Trials of a sweep: what they do when the sweep is to rest or to end, and how they go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.connection import Connections
from service.settings import Settings
from service.sweeps import SweepStore
from service.trials import TrialFiles
from warploom.codec import unpack_model
from warploom.errors import Unavailable
from warploom.records import Trial
from warploom.spec import Dimension, SweepSpec
from workers.trial import EVALUATIONS, PAUSED, TRIAL, Leash, TrialRun
from workers.trials import BOOKS, TrialBook

SWEEP = "sweep_00000000000000000000"
RATE = {"type": "loguniform", "low": 1e-3, "high": 1e-1}


def sweep(**changes: Any) -> SweepSpec:
    job = {
        "algorithm": {"name": "reptile", "inner_steps": 2},
        "task": "sinusoid",
        "model": {"name": "mlp", "hidden": [4]},
        "training": {"rounds": 6, "meta_batch": 2, "checkpoint_every": 100},
        "evaluation": {"every": 2, "tasks": 3},
    }
    return SweepSpec.model_validate({"job": job, "space": {"algorithm.inner_lr": RATE}, "num_samples": 4, **changes})


class Asked:
    """A sweep that runs for a while, and is then asked for something."""

    def __init__(self, then: str, after: int = 10**6) -> None:
        self.then, self.left = then, after

    def __call__(self) -> str:
        self.left -= 1
        return "running" if self.left >= 0 else self.then


@pytest.fixture
def files(tmp_path: Path) -> TrialFiles:
    return TrialFiles(Settings(home=tmp_path), SWEEP, "00000", generation=1)


def run(files: TrialFiles, asked: Asked, curve: list[dict[str, float]] | None = None) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    trial = Trial(id="00000", state="running", parameters={"algorithm.inner_lr": 0.02}, curve=curve or [])
    TrialRun(sweep(), trial, files, asked, rows.append).run()
    return rows


def test_a_trial_that_rested_ends_as_one_that_did_not(files: TrialFiles, tmp_path: Path) -> None:
    whole = run(TrialFiles(Settings(home=tmp_path / "other"), SWEEP, "00000"), Asked("running"))
    assert [row["meta_step"] for row in whole] == [0, 2, 4, 6]
    first = run(files, Asked("pausing", after=3))
    assert [(row["meta_step"], PAUSED in row) for row in first] == [(0, False), (2, False), (2, True)]
    again = run(files, Asked("pausing", after=0), curve=first[:-1])
    assert [(row["meta_step"], PAUSED in row) for row in again] == [(2, True)], "it rests on before it begins"
    second = run(files, Asked("running"), curve=first[:-1])
    assert [*first[:-1], *second] == whole, "bit for bit, with its number of evaluations"
    best = files.best()
    assert best is not None
    spec, meta = unpack_model(best)
    assert meta.version == min(whole, key=lambda row: row["loss"])["meta_step"]
    assert spec.to_json()["algorithm"]["inner_lr"] == 0.02
    files.clear()
    assert files.load() is None and files.best() == best


def test_a_trial_that_is_to_rest_before_it_began(files: TrialFiles) -> None:
    (row,) = run(files, Asked("pausing", after=0))
    assert (row[PAUSED], row[EVALUATIONS]) == (1.0, 0.0)
    assert files.load() is None and files.best() is None


def test_a_trial_of_a_sweep_that_is_stopped_is_measured_once_more(files: TrialFiles) -> None:
    rows = run(files, Asked("stopping", after=3))
    assert [row["meta_step"] for row in rows] == [0, 2, 3] and not any(PAUSED in row for row in rows)
    assert [row[EVALUATIONS] for row in rows] == [1.0, 2.0, 3.0]


def test_while_nobody_answers_a_sweep_is_as_it_was() -> None:
    answers = iter(["pausing"])

    def ask() -> str:
        for answer in answers:
            return answer
        raise Unavailable("redis is away")

    leash = Leash(ask)
    assert leash() == "pausing"
    leash._asked_at -= 60
    assert leash() == "pausing"


@pytest.fixture
def rows() -> Iterator[dict[str, Trial]]:
    yield {}
    BOOKS.pop(SWEEP, None)


def book(spec: SweepSpec, rows: dict[str, Trial], asked: Any = lambda: "running") -> TrialBook:
    found = TrialBook(spec, lambda trial: rows.update({trial.id: trial}), list(rows.values()), asked)
    BOOKS[SWEEP] = found
    return found


def played(spec: SweepSpec, rows: dict[str, Trial], most: int, asked: Any = lambda: "running") -> list[Any]:
    """Configurations of at most so many trials, each of which ends at once with its own inner_lr as its loss."""
    from workers.search import Suggestions

    found, search = [], Suggestions(SWEEP, spec)
    for number in range(most):
        config = search.suggest(f"tune{number}")
        found.append(config)
        if config == "FINISHED":
            break
        loss = config["algorithm.inner_lr"]
        BOOKS[SWEEP].started(config[TRIAL])
        BOOKS[SWEEP].measured(config[TRIAL], {"meta_step": 6.0, "loss": loss})
        search.on_trial_complete(f"tune{number}", {"loss": loss})
        BOOKS[SWEEP].ended(config[TRIAL], "succeeded")
    return found


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_a_search_goes_on_where_it_was(rows: dict[str, Trial], search: str) -> None:
    spec = sweep(search=search)
    assert book(spec, rows).left == 4
    first = played(spec, rows, 2)
    half = BOOKS[SWEEP].add({"algorithm.inner_lr": 0.05})
    BOOKS[SWEEP].started(half.id)
    lost = book(spec, rows)
    assert (lost.left, rows[half.id].state) == (2, "paused"), "its run is gone"
    rest = played(spec, rows, 9)
    assert rest[0] == {"algorithm.inner_lr": 0.05, TRIAL: "00002"}
    assert [config[TRIAL] for config in rest[1:-1]] == ["00003"] and rest[-1] == "FINISHED"
    rates = {config["algorithm.inner_lr"] for config in [*first, *rest[:-1]]}
    assert len(rates) == 4, "no draw is made twice"
    assert not BOOKS[SWEEP].interrupted


def test_no_trial_begins_while_the_sweep_is_to_rest(rows: dict[str, Trial]) -> None:
    spec = sweep(search="random")
    found = book(spec, rows, lambda: "pausing")
    assert played(spec, rows, 9) == ["FINISHED"] and found.interrupted and found.left == 4
    done = book(sweep(num_samples=1), {"00000": Trial(id="00000", state="succeeded", parameters={})}, lambda: "pausing")
    assert played(spec, rows, 9) == ["FINISHED"] and not done.interrupted, "nothing was left to begin"


def test_random_draws_stay_within_their_dimensions() -> None:
    from workers.search import draw

    space = {
        "a": Dimension(type="uniform", low=-1, high=2),
        "b": Dimension(type="loguniform", low=1e-4, high=1e-2),
        "c": Dimension(type="randint", low=1, high=3),
        "d": Dimension(type="choice", values=("x", "y")),
    }
    found = [draw(space, 7, number) for number in range(200)]
    assert all(-1 <= one["a"] <= 2 and 1e-4 <= one["b"] <= 1e-2 for one in found)
    assert {one["c"] for one in found} == {1, 2, 3} and {one["d"] for one in found} == {"x", "y"}
    assert draw(space, 7, 3) == found[3] != draw(space, 8, 3)


def test_halving_has_seen_the_trials_of_before(rows: dict[str, Trial]) -> None:
    from types import SimpleNamespace

    from workers.search import scheduler

    spec = sweep(grace_evaluations=1)
    curve = [{"meta_step": float(step), "loss": 0.1} for step in (0, 2)]
    for number in range(3):
        rows[f"{number:05d}"] = Trial(id=f"{number:05d}", state="stopped", parameters={}, curve=curve)
    new = Trial(id="00003", state="queued", parameters={})
    book(spec, rows).trials["00003"] = new
    halving = scheduler(SWEEP, spec)
    assert halving.set_search_properties("loss", "min")
    trial = SimpleNamespace(trial_id="tune", config={TRIAL: "00003"})
    halving.on_trial_add(None, trial)
    assert halving.on_trial_result(None, trial, {EVALUATIONS: 1.0, "loss": 5.0}) == "CONTINUE"
    assert halving.on_trial_result(None, trial, {EVALUATIONS: 2.0, "loss": 5.0}) == "STOP"


def test_a_sweep_whose_driver_dies_goes_on_until_its_retries_are_used_up(
    connections: Connections, redis_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import placement
    from workers.sweep import SweepRun

    def dies(*_: object) -> None:
        raise placement.ActorLost("its node is gone")

    for name, instead in (("start_actor", str), ("call", str), ("finished", lambda *_: [1]), ("kill", str)):
        monkeypatch.setattr(placement, name, lambda *_, made=instead, **__: made())
    monkeypatch.setattr(placement, "result", dies)
    spec = sweep().model_dump(mode="json")
    spec["job"]["training"]["max_retries"] = 1
    store = SweepStore(connections)
    made = store.create(SweepSpec.model_validate(spec))
    for state in ("queued", "queued", "failed"):
        claim = store.claim("me", 60)
        assert claim is not None
        SweepRun(connections, redis_settings, claim, threading.Event()).run()
        assert store.get(made.id).state == state
    failed = store.get(made.id)
    assert failed.error is not None
    assert (failed.retries, failed.error.code, failed.error.retryable) == (2, "runs_lost", True)
