"""Another process makes the same bytes of the same refs."""

from __future__ import annotations

import numpy as np

from tests.support.tasks import check_same_in_another_process


def test_another_process_makes_the_same_bytes(tmp_path, monkeypatch):
    chance = np.random.default_rng(0)
    columns = {"task": np.repeat(np.arange(20), 12), "x": chance.random((240, 1)), "y": chance.random(240)}
    np.savez(tmp_path / "arrays.npz", **columns)
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))
    check_same_in_another_process(
        [
            {"name": "surfaces"},
            {"name": "cosmixture", "shots": 4, "queries": 3},
            {"name": "alpine", "tasks": None, "shots": 4, "queries": 3},
            {"name": "continual-sine", "shots": 4, "queries": 3},
            {"name": "arrays", "shots": 4, "queries": 3},
            {"name": "ratings"},
        ]
    )
