"""A task is a function of its ref: the same bytes in every process, in any order, alone or in a batch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from warploom import registry
from warploom.types import TaskRef, Tasks

SPECS: list[dict[str, Any]] = [
    {"name": "sinusoid"},
    {"name": "glyphs", "ways": 5, "shots": 3, "queries": 2, "alphabets": 6},
    {"name": "omniglot", "ways": 5, "shots": 4, "queries": 2, "train_alphabets": 5, "test_alphabets": 3},
    {"name": "omniglot", "protocol": "few-shot", "ways": 5, "shots": 1, "queries": 2, "augment": False},
    {"name": "image-folder", "folder": "pictures", "ways": 3, "shots": 2, "queries": 3, "image_size": 16},
    {"name": "cifar10", "shots": 2, "queries": 3, "augment": True},
]
REFS = [TaskRef("train", 3, 11), TaskRef("validation", 0, 11), TaskRef("test", 9, 2**40), TaskRef("train", 12, 5)]
IDS = [f"{spec['name']}-{spec.get('protocol', '')}" for spec in SPECS]


def family(spec: dict[str, Any]) -> Any:
    config = registry.config_class("task", spec["name"]).model_validate(spec)
    return registry.implementation("task", config)(config)  # type: ignore[arg-type]


def fingerprint(tasks: Tasks) -> str:
    parts = (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y)
    return hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest()


def all_fingerprints() -> list[str]:
    return [fingerprint(family(spec).sample([ref])) for spec in SPECS for ref in REFS]


def test_another_process_makes_the_same_bytes(tiny_omniglot: Path) -> None:
    code = f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_same_bytes as t; "
    code += "print(json.dumps(t.all_fingerprints()))"
    root = str(Path(__file__).resolve().parents[3])
    fresh = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True, check=True
    )
    assert json.loads(fresh.stdout) == all_fingerprints()
    assert len(set(all_fingerprints())) == len(SPECS) * len(REFS)


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_what_was_sampled_before_does_not_matter(spec: dict[str, Any], tiny_omniglot: Path) -> None:
    first = fingerprint(family(spec).sample(REFS[:1]))
    used = family(spec)
    torch.manual_seed(1)
    used.sample([TaskRef("test", i, 77) for i in range(4)])
    used.sample(REFS[::-1])
    assert fingerprint(used.sample(REFS[:1])) == first


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_global_chance_is_left_alone(spec: dict[str, Any], tiny_omniglot: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    made = family(spec)
    x_B = made.sample(REFS).support_x[0]
    made.augment(x_B, torch.Generator().manual_seed(1))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_a_batch_is_its_tasks_stacked(spec: dict[str, Any], tiny_omniglot: Path) -> None:
    made = family(spec)
    batch = made.sample(REFS)
    assert batch.refs == tuple(REFS)
    for row, ref in enumerate(REFS):
        one = made.sample([ref])
        for name in ("support_x", "support_y", "query_x", "query_y"):
            assert torch.equal(getattr(batch, name)[row], getattr(one, name)[0])


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_shapes_and_types_are_those_of_the_config(spec: dict[str, Any], tiny_omniglot: Path) -> None:
    made = family(spec)
    config, tasks = made.config, made.sample(REFS)
    classes = config.outputs if config.kind == "classification" else 1
    for x, y, count in (
        (tasks.support_x, tasks.support_y, config.shots),
        (tasks.query_x, tasks.query_y, config.queries),
    ):
        assert x.shape == (4, classes * count, *config.input_shape)
        assert x.dtype == torch.float32
        if config.kind == "classification":
            assert y.dtype == torch.int64
            assert torch.equal(y, torch.arange(classes).repeat_interleave(count).expand(4, -1))
            assert 0 <= x.min() < x.max() <= 1
        else:
            assert y.shape == (4, count, 1)


@pytest.mark.parametrize("spec", SPECS[1:], ids=IDS[1:])
def test_a_change_of_the_sample_does_not_leak_into_the_next(spec: dict[str, Any], tiny_omniglot: Path) -> None:
    made = family(spec)
    before = fingerprint(made.sample(REFS))
    made.sample(REFS).support_x.zero_()
    assert fingerprint(made.sample(REFS)) == before
