"""The example in docs/adaptation.md that loads adapted weights into a net of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.adaptations import AdaptationQueue
from service.connection import Connections
from service.models import ModelStore
from service.settings import Settings
from tests.workers.test_adapter import outputs, request, serve
from warploom import wire
from warploom.build import build
from warploom.spec import JobSpec
from workers.adapter import Adapter
from workers.context import shipped
from workers.evaluator import Origin, register

PAGE = Path(__file__).parents[2] / "docs" / "adaptation.md"
SPEC = JobSpec.parse({"algorithm": "maml", "task": "sinusoid", "model": {"name": "mlp", "hidden": [40, 40]}})


def test_it_predicts_what_the_service_predicts(
    connections: Connections, redis_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, models, algorithm = AdaptationQueue(connections, ttl_s=60), ModelStore(connections), build(SPEC)
    register(models, "plain", SPEC, algorithm, algorithm.init(3), {"loss": 1.0}, Origin(once="x"))
    adapter = Adapter(shipped(redis_settings), "a1")
    adapter.attach(connections)
    asked = request(1, model="plain")
    serve(adapter, queue, asked)
    (tmp_path / "model.safetensors").write_bytes(models.blob("plain", 1))
    (tmp_path / "adapted.safetensors").write_bytes(queue.kept.get(asked.id)[1])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M):
        exec(block, names)
    query = wire.decode("support", asked.payload)[0]["query_x"]
    with torch.no_grad():
        found = names["net"](torch.from_numpy(query))
    np.testing.assert_allclose(found, outputs(queue, asked), rtol=1e-4, atol=1e-5)
