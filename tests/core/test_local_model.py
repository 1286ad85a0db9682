"""A downloaded model: adapted here as it is adapted there, into a module that needs nothing of ours."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from warploom.adaptation import ServedModel, Support
from warploom.build import build
from warploom.codec import pack_model
from warploom.errors import InvalidInput, WireError
from warploom.local_model import LocalModel
from warploom.models.base import BatchNorm
from warploom.registry import TASKS
from warploom.spec import JobSpec
from warploom.types import MetaState

SINE = {"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp"}
IMAGES = {
    "algorithm": {"name": "warpgrad", "inner_steps": 2, "inner_lr": 0.1},
    "task": {"name": "omniglot", "ways": 3, "shots": 1, "queries": 1},
    "model": {"name": "warp_conv4", "filters": 4},
}


def blob_of(document: dict[str, Any]) -> bytes:
    spec = JobSpec.parse(document)
    algorithm = build(spec, sampling=False)
    meta = MetaState(0, params := algorithm.model.initial(0))
    return pack_model(spec, MetaState(0, params | algorithm.also_learned(params, 0), meta.stats))


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))


def task_of(model: LocalModel, rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    x = chance.random((rows, *model.input_shape), dtype=np.float32)
    if model.kind == "classification":
        return x, np.arange(rows) % model.outputs
    return x, chance.random((rows, model.outputs), dtype=np.float32)


@pytest.mark.parametrize("document", [SINE, IMAGES], ids=["sine", "images without their files"])
@pytest.mark.parametrize("bn_mode", ["task", "transductive"])
def test_the_module_says_what_the_service_says(document: dict[str, Any], bn_mode: str) -> None:
    model = document["model"]
    if document is IMAGES:
        document = {**document, "model": {**model, "bn_mode": bn_mode}}
    blob = blob_of(document)
    local, served = LocalModel(blob), ServedModel.load(blob)
    x, y = task_of(local)
    net = local.adapt((x, y), steps=3, lr=0.05, seed=4)
    targets = torch.from_numpy(y) if local.kind == "classification" else torch.from_numpy(y).float()
    answer = served.adapt([Support(torch.from_numpy(x), targets, torch.from_numpy(x), 3, 0.05, 4)])[0]
    with torch.no_grad():
        outputs = net(torch.from_numpy(x))
    said = outputs.softmax(-1) if local.kind == "classification" else outputs
    torch.testing.assert_close(said, answer.outputs_Q)
    before = local.adapt(x, y, steps=0)
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters(), strict=True))


def test_it_is_a_plain_module_with_all_in_its_state_dict() -> None:
    local = LocalModel(blob_of(IMAGES))
    x, y = task_of(local)
    net = local.adapt(x, y)
    assert isinstance(net, nn.Module)
    assert all(isinstance(value, nn.Parameter) and value.requires_grad for value in net.parameters())
    norms = [name for name, layer in net.named_modules() if isinstance(layer, BatchNorm)]
    assert norms
    assert {f"{name}.{what}" for name in norms for what in ("mean", "var")} <= set(net.state_dict())
    # One query at a time as all together: no batch statistics are left in it.
    queries = torch.from_numpy(x)
    torch.testing.assert_close(torch.cat([net(row[None]) for row in queries]), net(queries))
    # And changing it changes no later adaptation.
    again = local.adapt(x, y).state_dict()
    for value in net.parameters():
        nn.init.zeros_(value)
    assert all(torch.equal(value, again[name]) for name, value in local.adapt(x, y).state_dict().items())


def test_a_copy_by_pickle_adapts_alike() -> None:
    local = LocalModel(blob_of(SINE))
    x, y = task_of(local)
    first, second = local.adapt(x, y), pickle.loads(pickle.dumps(local)).adapt(x, y)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("x", "y", "field"),
    [
        ([[1.0, 2.0]], [[1.0]], "/support/x"),
        ([[np.nan]], [[1.0]], "/support/x"),
        ([["a"]], [[1.0]], "/support/x"),
        ([[1.0], [2.0, 3.0]], [[1.0]], "/support/x"),
        ([[1.0]], [[1.0, 2.0]], "/support/y"),
        ([[1.0]], [1.0, 2.0], "/support/y"),
        ([[1.0]], None, "/support"),
    ],
)
def test_bad_support_sets_are_refused(x: Any, y: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LocalModel(blob_of(SINE)).adapt(x, y)
    assert caught.value.field == field


@pytest.mark.parametrize("y", [[0, 1, 3], [0, 1, -1], [0, 1, 0.5], [[0], [1], [2]]])
def test_bad_labels_are_refused(y: Any) -> None:
    local = LocalModel(blob_of(IMAGES))
    with pytest.raises(InvalidInput) as caught:
        local.adapt(np.zeros((3, *local.input_shape)), y)
    assert caught.value.field == "/support/y"


def test_divergence_and_foreign_bytes() -> None:
    with pytest.raises(InvalidInput, match="finite"):
        LocalModel(blob_of(SINE)).adapt([[1.0]], [[1.0]], steps=50, lr=1e30)
    with pytest.raises(WireError):
        LocalModel(b"no model")


def test_every_family_adapts_without_its_files() -> None:
    for name in TASKS:
        for model in ("mlp", "conv4", "point", "rnn"):
            try:
                spec = JobSpec.parse({"algorithm": "none", "task": name, "model": model})
            except InvalidInput:
                continue
            local = LocalModel(blob_of(spec.to_json()))
            assert isinstance(local.adapt(*task_of(local), steps=1, lr=1e-4), nn.Module)
            break
        else:
            pytest.fail(f"no model for {name}")
