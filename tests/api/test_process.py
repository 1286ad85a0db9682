"""The API as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.connection import Connections
from service.jobs import JobStore
from service.processes import free_port
from service.settings import Settings
from tests.api.conftest import KEY, FakeAdapter
from tests.api.test_adapt import PATH, X, Y
from tests.api.test_adapt_ways import files
from tests.support.waiting import wait_until
from warploom.client import Client
from warploom.errors import InvalidInput, Unauthenticated
from warploom.spec import JobSpec

# What the API's image leaves out of the requirements, in the words of the Dockerfile.
SPARE = re.search(r'spare = set\("([\w ]+)"', (Path(__file__).parents[2] / "Dockerfile").read_text())
assert SPARE
AS_IN_ITS_IMAGE = (
    f"import runpy, sys; sys.modules.update(dict.fromkeys({SPARE[1].split()})); "
    "runpy.run_module('api', run_name='__main__', alter_sys=True)"
)


def environment(settings: Settings, **changes: str) -> dict[str, str]:
    chosen = {
        "WARPLOOM_STATE_URL": settings.state_url,
        "WARPLOOM_REPLAY_URL": settings.replay_url,
        "WARPLOOM_HOME": str(settings.home),
        "WARPLOOM_API_KEY": KEY,
    }
    return {**os.environ, **chosen, **changes}


@pytest.fixture
def process(connections: Connections, settings: Settings, tmp_path: Path) -> Iterator[tuple[Any, str]]:
    port = str(free_port("127.0.0.1"))
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-c", AS_IN_ITS_IMAGE]
        process = subprocess.Popen(command, env=environment(settings, WARPLOOM_API_PORT=port), stderr=log)

    def up() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return httpx.get(f"{url}/livez").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(up, 30, what="the API")
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_the_api_carries_neither_torch_nor_ray_and_imports_fast() -> None:
    code = (
        "import sys, time; import api.serving; "
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules; print(time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Seconds of the processor, about one; the margin is for one whose cores are shared.
    assert float(done.stdout) < 6


def test_it_ends_in_good_order_with_streams_open(
    process: tuple[Any, str], connections: Connections, spec: dict[str, Any]
) -> None:
    server, url = process
    job = JobStore(connections).create(JobSpec.parse(spec))
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
    with httpx.stream("GET", f"{url}/v1/jobs/{job.id}/events", headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": connected"
        server.send_signal(signal.SIGTERM)
        for _ in lines:
            pass
    assert server.wait(10) == 0


@pytest.mark.usefixtures("images")
def test_the_client_against_the_real_server(
    process: tuple[Any, str], connections: Connections, adapter: FakeAdapter, spec: dict[str, Any]
) -> None:
    with Client(process[1], "wrong-key-wrong-key") as stranger, pytest.raises(Unauthenticated):
        stranger.jobs()
    with Client(process[1], KEY) as client:
        job = client.submit(spec)
        store = JobStore(connections)
        claim = store.claim("test", 60)
        assert claim is not None
        worker = threading.Thread(target=store.finish, args=(job.id, claim.generation, "succeeded"))
        worker.start()
        states = [event.data.get("state") for event in client.events(job.id) if event.kind == "state"]
        worker.join()
        assert states[-1] == "succeeded"
        assert client.wait(job.id, 5).state == "succeeded"
        adapted = client.adapt("images", X, Y, X[:2])
        assert adapted.prediction is not None
        assert client.predict(adapted.id, X[2:3]).labels == [2]
        with pytest.raises(InvalidInput) as caught:
            client.adapt("images", X, [0] * 6)
        assert caught.value.field == "/support/y"
        assert len(client.download("images")) == client.model("images").bytes
        with ThreadPoolExecutor(32) as pool:
            many = list(pool.map(lambda _: client.adapt("images", X, Y, X[:1]), range(64)))
        assert {one.prediction.labels[0] for one in many if one.prediction and one.prediction.labels} == {0}
    answer = httpx.post(f"{process[1]}{PATH}", files=files(0, 255, 51), headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200, answer.text


def test_it_says_why_it_cannot_start(settings: Settings, connections: Connections) -> None:
    command = [sys.executable, "-m", "api"]
    short = environment(settings, WARPLOOM_API_KEY="short")
    done = subprocess.run(command, env=short, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "too short" in done.stderr
    assert "Traceback" not in done.stderr
