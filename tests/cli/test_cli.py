"""The command line: what it says to a newcomer, what it sends, how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from warploom import __version__, errors
from warploom.cli import app, history, output, specfile
from warploom.cli.live import RunView
from warploom.cli.output import Session, ago, held_out, one_line, size
from warploom.records import Adaptation, Event, Job, LogLine, Model, Page, Prediction, Sweep, Trial


def every_command(group: Any = None, prefix: str = "") -> list[str]:
    group = group or typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():
        nested = getattr(command, "commands", None)
        found += every_command(command, f"{prefix}{name} ") if nested else [prefix + name]
    return found


COMMANDS = every_command()
SPEC = {"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp"}


def job(state: str = "succeeded", **changes: Any) -> Job:
    return Job.model_validate(
        {"id": "job_1", "name": "[red]name", "state": state, "spec": {"algorithm": {"name": "none"}}, "created_at": 1.0}
        | changes
    )


class FakeClient:
    """A client that notes what it is asked and answers from memory."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.final = "succeeded"
        self.history = [
            Event(id="1-0", at=1, kind="state", data={"state": "running"}),
            Event(id="2-0", at=2, kind="round", data={"meta_step": 1, "total": 2, "support_loss": 0.5}),
            Event(id="3-0", at=3, kind="of_the_future", data={}),
            Event(id="4-0", at=4, kind="evaluation", data={"meta_step": 1, "accuracy": 0.75, "accuracy_ci95": 0.1}),
            Event(id="5-0", at=5, kind="worker_lost", data={"role": "rollout", "ident": 1, "message": "[killed]"}),
        ]

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("close", None))

    def submit(self, spec: Any) -> Job:
        self.calls.append(("submit", spec))
        return job("queued")

    def jobs(self, **options: Any) -> Page[Job]:
        self.calls.append(("jobs", options))
        return Page[Job](data=[job()])

    def job(self, id: str) -> Job:
        if id == "nobody":
            raise errors.NotFound("there is no job 'nobody'", field="/id", value="nobody")
        return job(self.final)

    def cancel(self, id: str) -> Job:
        return job("cancelling")

    def pause(self, id: str) -> Job:
        return job("pausing")

    def resume(self, id: str) -> Job:
        return job("queued")

    def events(self, id: str) -> list[Event]:
        return self.history

    def models(self) -> list[Model]:
        return [self.model("m")]

    def model(self, name: str, version: int | None = None) -> Model:
        return Model(
            name=name, version=3, created_at=1, kind="classification", input_shape=[1, 2, 2], outputs=2,
            parameters=10, bytes=2048, sha256="0", default_steps=1, default_lr=0.1,
        )  # fmt: skip

    def download(self, name: str, version: int | None = None) -> bytes:
        return f"{name}-{version}".encode()

    def adapt(self, model: str, x: Any, y: Any, query_x: Any = None, *options: Any) -> Adaptation:
        self.calls.append(("adapt", (model, x, y, query_x, options)))
        prediction = None if query_x is None else Prediction(labels=[1], outputs=[[0.25, 0.75]])
        return Adaptation(
            id="adapt_1",
            model=model,
            version=3,
            steps=1,
            lr=0.1,
            losses=[1.0, 0.5],
            expires_at=9,
            prediction=prediction,
        )

    def sweep(self, spec: Any) -> Sweep:
        return self.get_sweep("sweep_1")

    def get_sweep(self, id: str) -> Sweep:
        trial = Trial(id="t1", state="succeeded", parameters={"algorithm.inner_lr": 0.1}, best=0.5)
        return Sweep(id=id, name="s", state=self.final, spec={}, created_at=1, trials=[trial], best_trial="t1")

    def wait_sweep(self, id: str, timeout_s: float | None = None) -> Sweep:
        return self.get_sweep(id)

    def sweeps(self) -> Page[Sweep]:
        return Page[Sweep](data=[self.get_sweep("sweep_1")])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    client = FakeClient()
    monkeypatch.setattr(Session, "client", lambda _: client)
    return client


def run(*arguments: str, stdin: str | None = None, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    text = run(*command.split(), "--help")
    assert "Example:" in text
    assert f"warploom {command}" in text
    assert "--json" in text


def test_version_and_bare_call() -> None:
    assert run("--version").strip() == f"warploom {__version__}"
    assert "submit" in run(code=2)


@pytest.mark.parametrize("arguments", [["--help"], ["catalog", "--json"], ["submit", "--help"], ["demo", "--help"]])
def test_light_commands_load_neither_torch_nor_ray(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom warploom.cli import main\n"
        f"sys.argv = ['warploom', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_catalog() -> None:
    found = json.loads(run("catalog", "--json"))
    assert {"warpgrad", "none"} <= {entry["name"] for entry in found["algorithms"]}
    assert set(found) == {"algorithms", "tasks", "models"}
    assert "omniglot" in run("catalog")


def test_submit_with_overrides(fake: FakeClient, tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(SPEC))
    run("submit", str(path), "--set", "training.rounds=20", "--set", "algorithm.inner_lr=0.5", "--set", "name=abc")
    sent = dict(fake.calls)["submit"]
    assert sent["training"] == {"rounds": 20}
    assert sent["algorithm"] == {"name": "warpgrad", "inner_lr": 0.5}
    assert sent["name"] == "abc"
    assert json.loads(run("submit", str(path), "--json"))["id"] == "job_1"


def test_specs_from_toml_and_standard_input(fake: FakeClient, tmp_path: Path) -> None:
    text = 'algorithm = "none"\n[training]\nrounds = 2\n'
    (tmp_path / "job.toml").write_text(text)
    expected = {"algorithm": "none", "training": {"rounds": 2}}
    assert specfile.read(str(tmp_path / "job.toml")) == expected
    for given in (text, json.dumps(expected)):
        run("submit", "-", stdin=given)
        assert fake.calls[0][1] == expected
        fake.calls.clear()


@pytest.mark.parametrize(
    ("name", "content", "overrides", "says"),
    [
        ("none.json", None, [], "cannot read the spec"),
        ("bad.json", "{", [], "not valid JSON"),
        ("bad.toml", "=", [], "not valid TOML"),
        ("list.json", "[]", [], "a spec is an object"),
        ("job.yaml", "a: 1", [], "JSON or TOML, not YAML"),
        ("binary.json", b"\xff\xfe\x00", [], "UTF-8"),
        ("ok.json", "{}", ["training.rounds"], "path.to.field=value"),
        ("ok.json", "{}", [".a=1"], "path.to.field=value"),
        ("ok.json", '{"a": 1}', ["a.b=1"], "plain value"),
    ],
)
def test_bad_specs(tmp_path: Path, name: str, content: Any, overrides: list[str], says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(errors.InvalidInput, match=says):
        specfile.read(str(path), overrides)


def test_errors_are_one_line_without_a_trace(fake: FakeClient) -> None:
    text = run("jobs", "nobody", code=1)
    assert text.strip() == "error: there is no job 'nobody' (field /id)"
    assert "Usage" in run("jobs", "--limit", "0", code=2)
    assert "Usage" in run("nonsense", code=2)
    line = one_line(errors.InvalidInput("too many\nlog", field="/steps", rule="at most 3", value=[9]))
    assert line == "too many (field /steps, rule: at most 3, got [9])\nlog"


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_watch(fake: FakeClient, state: str) -> None:
    fake.final = state
    text = run("watch", "job_1", code=0 if state == "succeeded" else 1)
    assert "75.0 % ± 10.0 %" in text
    assert "[killed]" in text
    lines = [json.loads(line) for line in run("watch", "job_1", "--json", code=int(state == "failed")).splitlines()]
    assert [line["kind"] for line in lines] == [event.kind for event in fake.history]


def test_lists_and_single_objects(fake: FakeClient) -> None:
    assert "job_1" in run("jobs", "--state", "succeeded")
    assert dict(fake.calls)["jobs"]["state"] == "succeeded"
    assert json.loads(run("jobs", "--json"))["data"][0]["name"] == "[red]name"
    assert "job_1" in run("jobs", "job_1")
    assert "cancelling" in run("cancel", "job_1")
    assert "pausing" in run("pause", "job_1")
    assert "queued" in run("resume", "job_1")
    assert "2.0 KiB" in run("models")
    assert json.loads(run("models", "--json"))[0]["version"] == 3
    assert "* t1" in run("sweeps", "sweep_1")
    assert "sweep_1" in run("sweeps")
    assert run("sweeps", "--cancel", code=2)
    assert run("models", "--download", "x", code=2)


def test_sweep(fake: FakeClient, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    path.write_text("{}")
    assert "sweep_1" in run("sweep", str(path))
    assert "* t1" in run("sweep", str(path), "--wait")
    fake.final = "failed"
    run("sweep", str(path), "--wait", code=1)


def test_a_sweep_on_a_terminal_has_a_bar(fake: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["running", "succeeded"])
    monkeypatch.setattr(fake, "get_sweep", lambda id: Sweep.model_validate(
        {"id": id, "name": "s", "state": next(states, "succeeded"), "spec": {"num_samples": 3}, "created_at": 1,
         "trials": [{"id": "t1", "state": "succeeded", "parameters": {}}]}
    ))  # fmt: skip
    monkeypatch.setattr("warploom.cli.sweeps.console", Console(force_terminal=True, width=100))
    assert "1/3" in run("sweep", "-", "--wait", stdin="{}")


def test_download(fake: FakeClient, tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    run("models", "m", "--download", str(target))
    assert target.read_bytes() == b"m-3"
    assert "cannot write" in run("models", "m", "--download", str(tmp_path / "no" / "w"), code=1)


def test_adapt(fake: FakeClient, tmp_path: Path) -> None:
    support, query, out = (str(tmp_path / name) for name in ("s.npz", "q.npz", "out.npz"))
    np.savez(support, x=np.zeros((2, 4)), y=[0, 1])
    np.savez(query, x=np.ones((1, 4)))
    text = run("adapt", "m", "--support", support, "--query", query, "--steps", "0", "--out", out)
    assert "75.0 %" in text
    _, x, _, query_x, options = dict(fake.calls)["adapt"]
    assert (x.shape, query_x.shape, options[0]) == ((2, 4), (1, 4), 0)
    with np.load(out) as saved:
        assert saved["labels"].tolist() == [1]
    assert json.loads(run("adapt", "m", "--support", support, "--json"))["prediction"] is None
    assert run("adapt", "m", "--support", support, "--out", out, code=2)
    np.savez(support, other=[1])
    assert "holds other, but not x or support_x" in run("adapt", "m", "--support", support, code=1)
    assert "cannot read" in run("adapt", "m", "--support", str(tmp_path / "none"), code=1)


def test_train_wants_local_and_checks_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(SPEC | {"model": "mlp"}))
    assert "--local" in run("train", str(path), code=1)
    assert "warp_mlp" in run("train", str(path), "--local", code=1)


def test_up_without_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for command in ("up", "demo"):
        assert "pip install -e" in " ".join(run(command, code=1).split())


def test_up_becomes_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("os.execve", lambda *arguments: seen.extend(arguments))
    run("up", "--port", "0", "--home", "/h", "--verbose", "--json")
    assert seen[1][1:] == ["-m", "service", "up", "--verbose", "--home", "/h", "--port", "0"]
    assert seen[2]["WARPLOOM_LOG_JSON"] == "1"


def test_the_view_survives_odd_events(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    console = Console(force_terminal=True, width=100)
    with RunView(console, "[title]") as view:
        for kind, data in [
            ("round", {}),
            ("state", {}),
            ("evaluation", {}),
            ("phase", {}),
            ("__init__", {}),
            ("x", {}),
        ]:
            view.on_event(kind, data)
        view.on_event("round", {"meta_step": 3, "total": 3, "support_loss": float("nan"), "query_loss": 1.5})
    assert view.loss == 1.5
    assert "[title]" in capsys.readouterr().out


def test_times_are_dates_and_lists_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(output.facts({"created_at": 86400.0 * 365, "scopes": ["a", "b"], "loss": 0.25}))
    text = capsys.readouterr().out
    assert "1970-12-3" in text or "1971-01-01" in text
    assert "a, b" in text
    assert "0.25" in text


def test_what_comes_from_elsewhere_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    line = LogLine(id="1-0", at=0.0, worker="learner", generation=1, level="info", message="a\x1b[2Jb\n12:00:00 forged")
    history._say(line)
    first, second = capsys.readouterr().out.splitlines()
    assert r"a\x1b[2Jb" in first and second == "    12:00:00 forged"
    Console(width=80).print(output.table(("A",), [("x\r\x07y",)]))
    assert r"x\r\x07y" in capsys.readouterr().out
    assert one_line(errors.NotFound("no \x1b[31mred")) == r"no \x1b[31mred"


def test_a_refusal_says_nothing_for_programs() -> None:
    error = errors.InvalidInput("unknown algorithm", field="/algorithm", rule="value_error", value="object")
    assert one_line(error) == "unknown algorithm (field /algorithm)"


def test_formats() -> None:
    assert (size(10), size(2048), size(3 * 2**40)) == ("10 B", "2.0 KiB", "3072.0 GiB")
    assert ago(0).endswith("d ago")


def test_a_regression_job_shows_its_held_out_loss() -> None:
    assert held_out({"loss": 0.12345, "support_loss": 1.0}) == "loss 0.1235"
    assert held_out({"loss": 0.5, "accuracy": 0.75}) == "75.0 %"
    assert held_out({"support_loss": 1.0}) == "-"
