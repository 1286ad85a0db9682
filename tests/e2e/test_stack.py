"""`warploom up` as a user runs it: a job over HTTP, a supervisor that is killed, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load

from tests.support.waiting import wait_until
from warploom.client import Client
from warploom.errors import InvalidInput, NotFound, Unauthenticated
from warploom.sklearn import FewShotRegressor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
READY_S = 120.0


class Stack:
    """A running `warploom up` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home, ready = home, home.parent / "ready"
        command = [sys.executable, "-m", "warploom.cli", "up", "--home", str(home), "--port", "0"]
        self.log = (home.parent / "up.log").open("w")
        self.process = subprocess.Popen(
            [*command, "--ready-file", str(ready)], stdout=self.log, stderr=self.log, start_new_session=True
        )
        wait_until(lambda: ready.exists() or self.process.poll() is not None, READY_S, what="readiness")
        assert self.process.poll() is None, Path(self.log.name).read_text()
        self.url, self.key = self._credentials()

    def _credentials(self) -> tuple[str, str]:
        found = json.loads((self.home / "credentials.json").read_text())
        return found["url"], found["api_key"]

    def client(self) -> Client:
        return Client(self.url, self.key)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def supervisor(self) -> psutil.Process:
        return next(p for p in self.family() if p.cmdline()[-2:] == ["-m", "workers"])

    def stop(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)
            self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("stack") / "home")
    yield running
    running.stop()


def sine(**training: Any) -> dict[str, Any]:
    return {
        "name": "sine",
        "algorithm": {
            "name": "warpgrad",
            "inner_lr": 0.01,
            "inner_steps": 4,
            "outer": "adam",
            "warp_lr": 1e-3,
            "init_lr": 1e-3,
            "points_per_update": 8,
        },
        "task": "sinusoid",
        "model": {"name": "warp_mlp", "hidden": [16]},
        "training": {"rounds": 4, "meta_batch": 4, "unit": 2, "rollouts": 1, "checkpoint_every": 2, **training},
        "evaluation": {"every": 2, "tasks": 4},
    }


def test_submit_watch_adapt_survive_and_leave_nothing(stack: Stack) -> None:
    with stack.client() as client:
        job = client.submit(sine())
        kinds = {event.kind for event in client.events(job.id)}
        assert {"state", "phase", "round", "evaluation", "checkpoint", "model"} <= kinds
        assert client.job(job.id).state == "succeeded"
        _adapt(client)
        _refuse(stack, client)
        _lose_the_supervisor(stack, client)
    _end(stack)


def _adapt(client: Client) -> None:
    x = np.linspace(-4, 4, 10, dtype="float32")[:, None]
    adaptation = client.adapt("sine", x, np.sin(x), query_x=x[:3], steps=8)
    assert len(adaptation.losses) == 9
    assert adaptation.losses[-1] < adaptation.losses[0]
    assert adaptation.prediction is not None
    again = client.predict(adaptation.id, x[:3])
    np.testing.assert_allclose(again.outputs, adaptation.prediction.outputs, rtol=1e-4, atol=1e-5)
    before, after = load(client.download("sine")), load(client.adapted_weights(adaptation.id))
    moved = {name.removeprefix("p/") for name in after if name.startswith("p/")}
    assert {"layer0.weight", "head.bias"} <= moved
    assert not any(name.startswith("warp") for name in moved)
    assert all(not np.array_equal(after[f"p/{name}"], before[f"p/{name}"]) for name in moved)
    net = client.download_model("sine").adapt(x, np.sin(x), steps=8)
    np.testing.assert_allclose(
        net(torch.from_numpy(x[:3])).detach(), adaptation.prediction.outputs, rtol=1e-4, atol=1e-5
    )
    estimator = FewShotRegressor(client, "sine", steps=8).fit(x, np.sin(x)[:, 0])
    np.testing.assert_allclose(estimator.predict(x[:3])[:, None], adaptation.prediction.outputs, rtol=1e-4, atol=1e-5)
    client.forget(adaptation.id)
    with pytest.raises(NotFound):
        client.predict(adaptation.id, x[:3])


def _refuse(stack: Stack, client: Client) -> None:
    x = np.zeros((4, 1), dtype="float32")
    x[2] = np.nan
    with pytest.raises(InvalidInput, match="finite"):
        client.adapt("sine", x, np.zeros((4, 1)))
    with pytest.raises(InvalidInput, match="warpgrad"):
        client.submit({**sine(), "algorithm": "warpgard"})
    with Client(stack.url, "wlk_wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.jobs()


def _lose_the_supervisor(stack: Stack, client: Client) -> None:
    job = client.submit({**sine(rounds=60), "name": "survivor"})
    wait_until(lambda: client.job(job.id).progress.meta_step >= 5, 150, what="round 5")
    before = stack.supervisor()
    before.kill()
    done = client.wait(job.id, timeout_s=300)
    assert done.state == "succeeded", done.error
    assert done.generation >= 2
    assert stack.supervisor().pid != before.pid
    rounds = [e.data["meta_step"] for e in client.events(job.id) if e.kind == "round"]
    assert rounds.count(1) == 1, "it went on from its checkpoint and not anew"
    assert sorted(set(rounds)) == list(range(1, 61))


def _end(stack: Stack) -> None:
    family = stack.family()
    names = {" ".join(p.cmdline()[:4]) for p in family}
    assert any("redis" in name for name in names)
    os.kill(stack.process.pid, signal.SIGINT)
    assert stack.process.wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, [p.cmdline() for p in alive]
    assert "supervisor ended" in (stack.home / "logs" / "supervisor.log").read_text()
