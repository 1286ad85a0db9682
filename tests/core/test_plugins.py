"""Plugins: what an operator allows is there, in every process alike; nothing else is even imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from warploom import plugins, registry
from warploom.errors import InvalidInput, SetupError
from warploom.local import train
from warploom.spec import JobSpec
from workers.context import Assignment, JobContext, shipped

CONFIGS = """
    from typing import ClassVar, Literal
    from warploom.configs import {base}

    class Parabola({base}):
        summary: ClassVar[str] = "parabolas"
        kind: ClassVar[str] = "regression"
        implementation: ClassVar[str] = "{package}.tasks:Parabola"
        name: Literal["{name}"] = "{name}"
        input_shape: ClassVar[tuple[int, ...]] = (1,)
        outputs: ClassVar[int] = 1
"""
WIDTH = "        width: int\n"
TASKS = """
    import torch
    from warploom.seeding import generator
    from warploom.tasks.base import TaskFamily
    from warploom.types import Tasks

    class Parabola(TaskFamily):
        def sample(self, refs):
            drawn = [torch.randn(8, 1, generator=generator(ref.split, ref.index, ref.seed)) for ref in refs]
            x = torch.stack(drawn)
            return Tasks(tuple(refs), x[:, :4], x[:, :4] ** 2, x[:, 4:], x[:, 4:] ** 2)
"""
JOB = {
    "algorithm": {"name": "reptile", "inner_steps": 2},
    "task": "parabola",
    "model": {"name": "mlp", "hidden": [4]},
    "training": {"rounds": 1, "meta_batch": 2},
    "evaluation": {"every": 1, "tasks": 1},
}
Install = Callable[..., str]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed distributions; tables and modules are as before afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules, tables = set(sys.modules), {shelf: dict(table) for shelf, table in registry.TABLES.items()}
    yield tmp_path
    for shelf, table in tables.items():
        registry.TABLES[shelf].clear()
        registry.TABLES[shelf].update(table)
    registry.PLUGINS.clear()
    for name in set(sys.modules) - modules:
        if name.startswith("plug"):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Install a distribution with one task family; what it is made of can be replaced."""

    def put(
        dist: str = "Plug_One",
        name: str = "parabola",
        group: str = "warploom.tasks",
        base: str = "TaskConfig",
        configs: str = CONFIGS,
        tasks: str = TASKS,
    ) -> str:
        package = dist.lower()
        home, info = site / package, site / f"{dist}-1.0.dist-info"
        home.mkdir()
        info.mkdir()
        (home / "__init__.py").touch()
        (home / "configs.py").write_text(dedent(configs.format(base=base, package=package, name=name)))
        (home / "tasks.py").write_text(dedent(tasks))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {package}.configs:Parabola\n")
        return package.replace("_", "-")

    return put


def test_an_allowed_plugin_trains_like_a_family_of_our_own(install):
    plugin = install()
    with pytest.raises(InvalidInput, match="parabola"):
        JobSpec.parse(JOB)
    assert plugins.enable([plugin]) == ["task/parabola"]
    assert plugins.enable(["PLUG.one"]) == [], "the same distribution under another spelling of its name"
    assert train(JobSpec.parse(JOB)).metrics["meta_step"] == 1
    names = JobSpec.model_json_schema()["properties"]["task"]["properties"]["name"]["enum"]
    assert "parabola" in names


def test_what_is_not_allowed_is_not_imported(install):
    plugin = install()
    install("Plug_Two", "cubic", configs="raise AssertionError('imported')")
    plugins.enable([plugin])
    assert "cubic" not in registry.TASKS
    assert not any(name.startswith("plug_two") for name in sys.modules)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"name": "sinusoid"}, "built-in"),
        ({"name": "No Name"}, "its name may hold"),
        ({"base": "ModelConfig"}, "is no TaskConfig"),
        ({"group": "warploom.models"}, "is no ModelConfig"),
        ({"configs": CONFIGS.replace('"{name}"] = "{name}"', '"else"] = "else"')}, "has the name 'else'"),
        ({"configs": CONFIGS.replace("{package}.tasks:Parabola", "tasks")}, "names no implementation"),
        ({"configs": "import nowhere_to_be_found"}, "nowhere_to_be_found"),
        (
            {"base": "ModelConfig", "group": "warploom.models", "configs": CONFIGS + "        width: int\n"},
            "no default",
        ),
    ],
)
def test_a_plugin_at_fault_is_named_and_changes_nothing(install, parts, words):
    good, bad = install(), install("Plug_Bad", **{"name": "other", **parts})
    before = {shelf: dict(table) for shelf, table in registry.TABLES.items()}
    with pytest.raises(SetupError, match=words) as caught:
        plugins.enable([good, bad])
    assert "'plug-bad'" in caught.value.message
    assert before == registry.TABLES
    assert not registry.PLUGINS


@pytest.mark.parametrize("at_once", [True, False])
def test_two_plugins_cannot_share_a_name(install, at_once):
    first, second = install(), install("Plug_Two")
    if not at_once:
        plugins.enable([first])
    with pytest.raises(SetupError, match="taken by plugin 'plug-one'") as caught:
        plugins.enable([first, second])
    assert "'plug-two'" in caught.value.message


def test_a_plugin_that_is_not_there_is_named(site):
    with pytest.raises(SetupError, match="'plug-absent' is not installed"):
        plugins.enable(["plug-absent"])


def test_an_implementation_that_does_not_load_names_the_plugin(install):
    plugins.enable([install(tasks="import nowhere_to_be_found")])
    with pytest.raises(SetupError, match=r"plugin 'plug-one'.*nowhere_to_be_found"):
        train(JobSpec.parse(JOB))


def test_actors_have_the_plugins_of_the_settings_that_they_are_sent(install, connections, redis_settings):
    settings = shipped(redis_settings.model_copy(update={"plugins": (install(),)}))
    context = JobContext(Assignment("job_00000000000000000000", "a", 1, JOB, json.loads(json.dumps(settings))))
    context.connections.close()
    assert context.spec.task.name == "parabola"


def api_process(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A process that enables what its settings say, as the API does, and then runs `code`."""
    start = "import sys, api.app; from service.settings import Settings; from warploom import plugins\n"
    env = {"PYTHONPATH": f"{site}:{Path(plugins.__file__).parent.parent}", "WARPLOOM_PLUGINS": "plug-one, "}
    command = [sys.executable, "-c", f"{start}plugins.enable(Settings().plugins)\n{code}"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_api_lists_a_plugin_without_torch(install, site):
    install()
    code = (
        "from warploom.catalog import catalog\n"
        "assert [e.summary for e in catalog().tasks if e.name == 'parabola'] == ['parabolas']\n"
        f"from warploom.spec import JobSpec; JobSpec.parse({JOB!r})\n"
        "assert 'torch' not in sys.modules"
    )
    done = api_process(site, code)
    assert done.returncode == 0, done.stderr


def test_a_config_that_loads_torch_is_refused_where_torch_is_not(install, site):
    install(configs="import torch\n" + dedent(CONFIGS))
    done = api_process(site, "")
    assert "plugin 'plug-one': task 'parabola': importing plug_one.configs:Parabola loads torch" in done.stderr
