"""The experiments at their tiny size, and the reports."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until
from warploom.errors import InvalidInput
from warploom.reproduce.base import Arm, Mean, Measure
from warploom.reproduce.comparison import Comparison, means_of
from warploom.reproduce.report import markdown, write
from warploom.reproduce.table import EXPERIMENTS, experiment
from warploom.spec import JobSpec

SLOW = {"omniglot-multi-shot", "omniglot-few-shot", "warp-ablation", "architectures"}  # they read Omniglot


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("size", ["tiny", "cpu", "paper"])
def test_every_arm_is_a_valid_job_and_every_claim_names_arms_and_measures(name, size):
    chosen = experiment(name)
    if not isinstance(chosen, Comparison):
        return
    arms, measures = chosen.arms(size), chosen.measures(size)
    assert len({arm.key for arm in arms}) == len(arms)
    for arm in arms:
        JobSpec.parse(json.loads(json.dumps(arm.spec)))
        assert set(arm.paper) <= {measure.name for measure in measures}
    means = {arm.key: {measure.name: Mean(0.5, 0.0, 1) for measure in measures} for arm in arms}
    if size != "tiny":
        assert all(claim.holds(means) in (True, False) for claim in chosen.claims(size))


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - SLOW))
def test_the_tiny_size_runs_and_writes_its_report(name, tmp_path):
    lines: list[str] = []
    chosen = experiment(name)
    outcome = chosen.run("tiny", 1, tmp_path, lines.append)
    report = write(outcome, list(chosen.measures("tiny")), tmp_path)
    text = report.read_text()
    assert text.startswith(f"# {chosen.title}\n")
    assert f"warploom reproduce {name} --size tiny" in text
    document = json.loads((tmp_path / f"{name}.json").read_text())
    values = [mean["value"] for row in document["means"].values() for mean in row.values()]
    assert values
    assert all(math.isfinite(value) for value in values)
    assert outcome.figures
    assert all(path.stat().st_size > 5000 for path in outcome.figures)
    assert lines


@pytest.mark.skipif("WARPLOOM_DATA" not in os.environ, reason="needs WARPLOOM_DATA with Omniglot")
@pytest.mark.parametrize("name", sorted(SLOW))
def test_the_tiny_size_of_omniglot_experiments_runs(name, tmp_path):
    outcome = experiment(name).run("tiny", 1, tmp_path, lambda _line: None)
    assert len(outcome.means) == len(experiment(name).arms("tiny"))


class Two(Comparison):
    name, title, source = "two", "Two ways", "nobody"

    def arms(self, size):
        spec = {
            "algorithm": {"name": "none", "inner_steps": 2},
            "task": "sinusoid",
            "model": {"name": "mlp", "hidden": [4]},
            "training": {"rounds": 0},
            "evaluation": {"tasks": 2},
        }
        return [Arm("a", spec, {"loss": "1.0"}), Arm("b", spec)]

    def measures(self, size):
        return [Measure("loss", "loss", better="lower"), Measure("later", "loss", steps=5, better="lower")]


def test_finished_runs_are_not_repeated(tmp_path):
    first: list[str] = []
    again: list[str] = []
    one = Two().run("tiny", 2, tmp_path, first.append)
    other = Two().run("tiny", 2, tmp_path, again.append)
    assert len(first) == 4
    assert again == ["4 runs were there already"]
    assert one.means == other.means
    assert {run["seed"] for run in one.runs} == {0, 1}
    assert "| a | " in markdown(one, list(Two().measures("tiny")))
    assert len(list(Path(tmp_path / "runs").glob("*.json"))) == 4


def test_no_worker_outlives_who_started_it(tmp_path):
    """Runs of an hour, in workers of a process that is killed."""
    code = (
        "from warploom.reproduce.base import Arm, Measure; from warploom.reproduce.runs import run_all; "
        "spec = {'algorithm': 'maml', 'task': 'sinusoid', 'model': 'mlp', 'training': {'rounds': 100_000}}; "
        f"run_all([Arm('a', spec)], [Measure('loss', 'loss')], 2, Path({str(tmp_path)!r}), print)"
    )
    main = f"if __name__ == '__main__':\n    from pathlib import Path; {code}\n"
    (tmp_path / "main.py").write_text(main)
    with subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env=os.environ) as process:
        parent = psutil.Process(process.pid)
        try:
            wait_until(lambda: sum(sum(c.cpu_times()[:2]) > 4 for c in parent.children()) > 1, 60, what="two at work")
            workers = parent.children()
        finally:
            process.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    for worker in alive:
        worker.kill()
    assert not alive


def test_means_have_student_intervals():
    runs = [{"key": "a", "seed": i, "measures": {"m": value}} for i, value in enumerate([1.0, 2.0, 3.0])]
    mean = means_of(runs)["a"]["m"]
    assert (mean.value, mean.seeds) == (2.0, 3)
    assert mean.half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)


def test_an_unknown_experiment_is_refused_with_the_list():
    with pytest.raises(InvalidInput, match="unknown experiment 'nope'; there are: "):
        experiment("nope")
