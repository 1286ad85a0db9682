"""The demo: its specs, its numbers, and that it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from warploom import demo
from warploom.cli import embedded
from warploom.errors import SetupError
from warploom.records import Adaptation, Prediction
from warploom.spec import JobSpec

READY = """
import json, pathlib, signal, sys, time
home = pathlib.Path(sys.argv[sys.argv.index("--home") + 1])
(home / "pid").write_text(str(__import__("os").getpid()))
(home / "credentials.json").write_text(json.dumps({"url": "http://x", "api_key": "key"}))
(home / "ready.json").write_text(json.dumps({"url": "http://x", "pid": 1}))
signal.pause()
"""


def test_both_jobs_are_valid_and_start_from_the_same_weights() -> None:
    trained, untrained = JobSpec.parse(demo.TRAINED), JobSpec.parse(demo.UNTRAINED)
    assert trained.model == untrained.model
    assert trained.task == untrained.task
    assert trained.training.seed == untrained.training.seed
    assert untrained.training.rounds == 0
    assert trained.evaluation.split == "validation"


def test_report() -> None:
    rows = [demo.Row("a", 0.1, 0.9, 0.4), demo.Row("b", 0.3, 0.7, 0.6)]
    report = demo.report(rows, 12.345, {"id": "job_1"})
    assert report["mean"] == {
        "before": pytest.approx(0.2),
        "after": pytest.approx(0.8),
        "untrained": pytest.approx(0.5),
    }
    assert report["tasks"][0] == {"task": "a", "before": 0.1, "after": 0.9, "untrained": 0.4}
    assert report["seconds"] == 12.35 or report["seconds"] == 12.34


def fake_service(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-c", code, *command[3:]], **options)

    monkeypatch.setattr(subprocess, "Popen", start)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("trouble", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_what_was_started_is_stopped(monkeypatch: pytest.MonkeyPatch, trouble: type[BaseException] | None) -> None:
    fake_service(monkeypatch, READY)
    seen: list[tuple[Path, int]] = []

    def use() -> None:
        with embedded.running() as stack:
            assert (stack.url, stack.api_key) == ("http://x", "key")
            seen.append((stack.home, int((stack.home / "pid").read_text())))
            if trouble:
                raise trouble

    if trouble is None:
        use()
    else:
        with pytest.raises(trouble):
            use()
    home, pid = seen[0]
    assert gone(pid)
    assert not home.exists()


def test_a_service_that_does_not_start_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_service(monkeypatch, "import sys; sys.exit('no redis here')")
    with pytest.raises(SetupError, match="no redis here"), embedded.running():
        pass


def test_the_folder_is_kept_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    fake_service(monkeypatch, READY)
    said: list[str] = []
    with embedded.running(keep=True, say=said.append) as stack:
        pass
    assert stack.home.is_dir()
    assert f"kept {stack.home}" in said
    shutil.rmtree(stack.home)


class Oracle:
    """A client whose models are right after adaptation, and always say class 0 before."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []

    def adapt(self, model: str, x: Any, y: Any, query_x: Any, **options: Any) -> Adaptation:
        steps = options["steps"]
        self.asked.append((model, steps))
        # Each query is classed by the nearest support example, or not at all.
        distance = ((query_x[:, None] - x[None]) ** 2).reshape(len(query_x), len(x), -1).sum(-1)
        labels = y[distance.argmin(axis=1)] if steps is None else 0 * y[distance.argmin(axis=1)]
        prediction = Prediction(labels=labels.tolist(), outputs=[[1.0]] * len(query_x))
        return Adaptation(
            id="a", model=model, version=1, steps=1, lr=0.1, losses=[], expires_at=1, prediction=prediction
        )


def test_measure_asks_three_times_for_each_new_task() -> None:
    oracle = Oracle()
    task = {**demo.TASK, "queries": 2}
    rows = list(demo.measure(oracle, "t", "u", task, 2))  # type: ignore[arg-type]
    assert oracle.asked == [("t", 0), ("t", None), ("u", None)] * 2
    for row in rows:
        assert row.before == pytest.approx(1 / task["ways"])
        assert row.after == row.untrained > row.before
