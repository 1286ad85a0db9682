"""What every task family must keep, for the families' own tests."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from warploom.build import build_family
from warploom.registry import config_class
from warploom.types import TaskRef, Tasks

REFS = [TaskRef("train", 3, 11), TaskRef("validation", 0, 11), TaskRef("test", 9, 2**40), TaskRef("train", 12, 5)]
COLUMNS = ("support_x", "support_y", "query_x", "query_y")


def make(document: dict[str, Any]) -> Any:
    return build_family(config_class("task", document["name"]).model_validate(document))  # type: ignore[arg-type]


def fingerprint(tasks: Tasks) -> str:
    return hashlib.sha256(b"".join(getattr(tasks, c).contiguous().numpy().tobytes() for c in COLUMNS)).hexdigest()


def check_function_of_the_ref(document: dict[str, Any], *, distinct: bool = True) -> None:
    """Equal refs give equal tasks: alone, in a batch, after other samples; global chance is left alone."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    family = make(document)
    batch = family.sample(REFS)
    assert batch.refs == tuple(REFS)
    for row, ref in enumerate(REFS):
        one = make(document).sample([ref])
        for column in COLUMNS:
            assert torch.equal(getattr(batch, column)[row], getattr(one, column)[0])
    batch.support_x.zero_()
    family.sample([TaskRef("test", i, 77) for i in range(4)])
    again = family.sample(REFS)
    assert fingerprint(again) == fingerprint(make(document).sample(REFS))
    assert torch.equal(state, torch.get_rng_state())
    if distinct:
        assert len({fingerprint(family.sample([ref])) for ref in REFS}) == len(REFS)


def check_same_in_another_process(documents: list[dict[str, Any]]) -> None:
    code = f"from tests.support.tasks import *; print(*[fingerprint(make(d).sample(REFS)) for d in {documents!r}])"
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "7"}
    fresh = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, check=True, text=True)
    assert fresh.stdout.split() == [fingerprint(make(document).sample(REFS)) for document in documents]
