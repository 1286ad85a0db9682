"""The command line against the API itself: every route can be reached by a command, and its answer is shown.

A new route without a command fails `test_every_route_has_a_command`: add it to the client and to the command line, and
a line to `SCRIPT`, or its reason to `NO_COMMAND`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from service.connection import Connections
from service.fleet import Fleet
from tests.api.conftest import KEY, Api, FakeAdapter
from warploom.cli import app as command_line
from warploom.cli.output import Session
from warploom.client import Client
from warploom.wire import decode

NO_COMMAND = {
    ("GET", "/livez"): "for orchestrators; `warploom health` asks more",
    ("GET", "/metrics"): "for Prometheus",
    ("GET", "/v1/models/{name}/weights"): "`warploom models --download` names the version that it showed",
    ("GET", "/openapi.json"): "for code generators and the documentation page",
}


def refused(_: Any) -> dict[str, str]:
    """Marks a command that the service refuses here, because no worker has run."""
    raise AssertionError("not a result")


# Commands in order; {job} and the like are what commands before them made.
SCRIPT: list[tuple[str, Callable[[Any], dict[str, str]] | None]] = [
    ("health", None),
    ("limits", None),
    ("whoami", None),
    ("usage", None),
    ("keys create ci --scope jobs:read --days 1", lambda found: {"key": found["id"]}),
    ("keys list", None),
    ("keys show {key}", None),
    ("keys update {key} --name nightly --scope jobs:read --limit jobs=1", None),
    ("keys rotate {key} --grace-s 0", None),
    ("keys revoke {key}", None),
    ("webhooks create http://127.0.0.1:9/ --event job.failed", lambda found: {"hook": found["id"]}),
    ("webhooks list", None),
    ("webhooks show {hook}", None),
    ("webhooks update {hook} --event job.cancelled --description ends", None),
    ("webhooks rotate {hook} --grace-s 60", None),
    ("webhooks test {hook}", None),
    ("webhooks deliveries {hook}", None),
    ("webhooks delete {hook}", None),
    ("audit", None),
    ("submit {spec} --dry-run", None),
    ("submit {spec}", lambda found: {"job": found["id"]}),
    ("jobs", None),
    ("jobs {job}", None),
    ("note {job} owner=ada", None),
    ("jobs --metadata owner=ada --oldest-first", None),
    ("events {job}", None),
    ("logs {job}", None),
    ("checkpoints {job}", None),
    ("checkpoints {job} --download 1 --out {out}", refused),
    ("lineage {job}", None),
    ("metrics {job}", None),
    ("pause {job}", None),
    ("resume {job}", None),
    ("cancel {job}", None),
    ("sweep {sweep_spec}", lambda found: {"sweep": found["id"]}),
    ("sweeps", None),
    ("sweeps {sweep}", None),
    ("note {sweep} owner=ada", None),
    ("events {sweep}", None),
    ("pause {sweep}", None),
    ("resume {sweep}", None),
    ("promote {sweep} --name sine --alias stable", refused),
    ("stop {sweep}", None),
    ("cancel {sweep}", None),
    ("sweeps {sweep} --cancel", None),
    ("catalog --remote", None),
    ("models", None),
    ("models images", None),
    ("note images owner=ada", None),
    ("models images --versions", None),
    ("models images --version 1 --download {out}", None),
    ("models images --download {out}", None),
    ("alias images stable 1", None),
    ("alias images", None),
    ("alias images stable --forget", None),
    ("adapt images --support {support}", lambda found: {"adaptation": found["id"]}),
    ("adapt images --support {support} --support {support} --seed 3", None),
    ("adapt images --support {classes} --query {picture} --seed 4", None),
    ("predict {adaptation} --query {support}", None),
    ("predict {adaptation} --query {picture}", None),
    ("adaptation {adaptation} --download {out}", None),
    ("adaptation {adaptation} --forget", None),
]


class Bridge(httpx.BaseTransport):
    """Requests of a blocking client, answered by the application in its own event loop."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.asked: list[tuple[str, str]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path))
        path = request.url.raw_path.decode()
        answer = self.api.request(request.method, path, content=request.read(), headers=request.headers)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture
def bridge(anonymous: Api, monkeypatch: pytest.MonkeyPatch) -> Bridge:
    found = Bridge(anonymous)
    monkeypatch.setattr(Session, "client", lambda _: Client("http://api", KEY, transport=found, max_retries=0))
    return found


@pytest.fixture
def files(tmp_path: Path, spec: dict[str, Any]) -> dict[str, str]:
    search = {"job": spec, "space": {"algorithm.inner_lr": {"type": "loguniform", "low": 0.01, "high": 0.1}}}
    for name, document in (("spec", spec), ("sweep_spec", search)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    x = np.zeros((3, 1, 2, 2))
    np.savez(tmp_path / "support.npz", x=x, y=[0, 1, 2])
    for name in ("cat", "dog", "owl"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "classes" / name / "1.png")
    names = {"spec": "spec.json", "sweep_spec": "sweep_spec.json", "support": "support.npz", "out": "out"}
    names |= {"classes": "classes", "picture": "classes/owl/1.png"}
    return {name: str(tmp_path / file) for name, file in names.items()}


@pytest.fixture
def hits(
    bridge: Bridge, files: dict[str, str], images: str, adapter: FakeAdapter, connections: Connections
) -> list[tuple[str, str]]:
    """What the script asked for. Each command runs for people and, where that does no harm, for programs."""
    Fleet(connections).beat("supervisor", "fake", 60)
    known = dict(files)
    for line, learn in SCRIPT:
        result = CliRunner().invoke(command_line, [word.format(**known) for word in line.split()] + ["--json"])
        if learn is refused:
            assert (result.exit_code, result.output[:7]) == (1, "error: "), f"{line}: {result.output}"
            continue
        assert result.exit_code == 0, f"{line}: {result.output}"
        document = json.loads(result.output)
        if learn is not None:
            known |= learn(document)
        elif not re.search(r"--forget|rotate|revoke|delete", line):
            shown = CliRunner().invoke(command_line, [word.format(**known) for word in line.split()])
            assert shown.exit_code == 0, f"{line}: {shown.output}"
            assert shown.output.strip()
    return bridge.asked


def test_every_route_has_a_command(anonymous: Api, hits: list[tuple[str, str]]) -> None:
    routes = {
        (method.upper(), path)
        for path, methods in anonymous.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    reached = {route for route in routes if any(_matches(route, hit) for hit in hits)}
    assert sorted(routes - reached - set(NO_COMMAND)) == []
    assert sorted(set(NO_COMMAND) & reached) == [], "these have a command now"


def _matches(route: tuple[str, str], hit: tuple[str, str]) -> bool:
    pattern = re.sub(r"\{[^}]+\}", "[^/]+", route[1])
    return route[0] == hit[0] and re.fullmatch(pattern, hit[1]) is not None


def test_pictures_are_told_by_their_names(
    bridge: Bridge, files: dict[str, str], images: str, adapter: FakeAdapter
) -> None:
    line = ["adapt", images, "--support", files["classes"], "--query", files["picture"], "--steps", "3"]
    found = json.loads(CliRunner().invoke(command_line, [*line, "--json"]).output)
    assert (found["classes"], found["queries"]) == (["cat", "dog", "owl"], [files["picture"]])
    assert (adapter.requests[0].steps, found["prediction"]["labels"]) == (3, [0])
    arrays = decode("support", adapter.requests[0].payload)[0]
    assert arrays["support_y"].tolist() == [0, 1, 2] and arrays["query_x"].shape == (1, 1, 2, 2)
    assert re.search(r"png +cat ", CliRunner().invoke(command_line, line).output)


def test_a_key_with_limits_of_its_own(bridge: Bridge) -> None:
    line = ["keys", "create", "x", "--limit", "jobs=2", "--limit", "sweeps=0", "--json"]
    made = CliRunner().invoke(command_line, line)
    assert json.loads(made.output)["limits"] == {"jobs": 2, "sweeps": 0}
    for bad in ("jobs", "jobs=", "jobs=-1", "jbos=1"):
        refusal = CliRunner().invoke(command_line, ["keys", "create", "x", "--limit", bad])
        assert (refusal.exit_code, refusal.output[:7]) == (1, "error: "), refusal.output


def test_refusals_of_the_service_are_one_line(bridge: Bridge) -> None:
    for command, says in (("jobs job_none", "job_none"), ("models none", "none")):
        result = CliRunner().invoke(command_line, command.split())
        assert result.exit_code == 1
        assert result.output.startswith("error: ")
        assert says in result.output
        assert len(result.output.splitlines()) == 1
