"""The examples in docs/client.md and docs/api.md, run in order against the API; those in docs/cli.md, read as the
commands would."""

from __future__ import annotations

import argparse
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from string import Template

import httpx
import pytest
import typer

from service.connection import Connections
from service.events import EventLog
from service.fleet import Fleet
from service.jobs import JobStore
from service.models import ModelStore
from tests.api.conftest import KEY, Api, FakeAdapter
from tests.cli.test_cli import every_command
from warploom.build import build
from warploom.cli import app as command_line
from warploom.codec import pack_model
from warploom.spec import JobSpec

DOCS = Path(__file__).parents[2] / "docs"


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def supervisor(connections: Connections) -> Iterator[None]:
    """Ends every job that is queued, in good order."""
    store, log, stop = JobStore(connections), EventLog(connections), threading.Event()
    Fleet(connections).beat("supervisor", "fake", 60)

    def run() -> None:
        while not stop.wait(0.02):
            if (claim := store.claim("fake", 60)) is not None:
                log.append(claim.job.id, "round", {"meta_step": 1, "support_loss": 0.5}, generation=claim.generation)
                store.finish(claim.job.id, claim.generation, "succeeded")

    thread = threading.Thread(target=run)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_the_examples_of_the_client(
    url: str,
    supervisor: None,
    adapter: FakeAdapter,
    connections: Connections,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WARPLOOM_URL", url)
    monkeypatch.setenv("WARPLOOM_API_KEY", KEY)
    spec = JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp"})
    facts = {"parameters": 1, "default_steps": 5, "default_lr": 0.01, "metrics": {}, "spec": {}, "once": "sine"}
    shape = {"kind": "regression", "input_shape": [1], "outputs": 1}
    ModelStore(connections).register("sine", pack_model(spec, build(spec).init(0)), **shape, **facts)
    names: dict[str, object] = {}
    try:
        for block in blocks("client.md", "python"):
            exec(compile(block, "docs/client.md", "exec"), names)
    finally:
        if "client" in names:
            names["client"].close()  # type: ignore[attr-defined]
    said = capsys.readouterr().out
    assert "succeeded" in said
    assert "422 invalid_input" in said


def curled(client: Api, words: list[str]) -> httpx.Response:
    """What curl would do with these arguments."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="body")
    for flag in ("-s", "-N"):
        parser.add_argument(flag, action="store_true")
    asked = parser.parse_args(words)
    headers = dict(line.split(": ", 1) for line in asked.headers)
    method = asked.method or ("GET" if asked.body is None else "POST")
    return client.request(method, asked.url, headers=headers, content=asked.body)


@pytest.mark.usefixtures("waves", "adapter")
def test_the_calls_of_the_api_page(anonymous: Api, connections: Connections) -> None:
    Fleet(connections).beat("supervisor", "fake", 60)
    known = {"WARPLOOM_URL": "", "WARPLOOM_API_KEY": KEY}
    script = "".join(blocks("api.md", "sh")).replace("\\\n", " ")
    calls = [line for line in script.splitlines() if line.startswith("curl")]
    streams = [line for line in calls if line.startswith("curl -sN")]
    assert (len(calls), len(streams)) == (19, 1)
    for line in [one for one in calls if one not in streams]:
        _succeeds(anonymous, line, known)
    # A stream ends with its job; here nobody works.
    JobStore(connections).cancel(known["JOB"])
    assert "event: " in _succeeds(anonymous, streams[0], known).text


def _succeeds(client: Api, line: str, known: dict[str, str]) -> httpx.Response:
    words = [Template(word).substitute(known) for word in shlex.split(line, comments=True)[1:]]
    answer = curled(client, words)
    assert answer.is_success, f"{line}: {answer.text}"
    if answer.request.method == "POST":
        made = answer.json()["id"]
        known[made.partition("_")[0].upper()] = made
    return answer


def test_the_command_lines_can_be_read_and_every_command_is_there() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    lines = [line for block in blocks("cli.md", "sh") for line in block.splitlines()]
    assert len(lines) > 8
    for line in lines:
        command, words = typer.main.get_command(command_line), shlex.split(line)[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        with typer.Context(command) as context:
            command.make_parser(context).parse_args(words)
    for name in every_command():
        assert f"`warploom {name}`" in text, f"docs/cli.md does not tell of {name}"
