"""A short run of Schemathesis over the whole document, with a fixed seed. `make fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fuzz_api import fuzz, prepared
from service.connection import Connections
from service.settings import Settings
from tests.api.conftest import FakeAdapter


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_answer_is_outside_the_document(
    url: str, connections: Connections, settings: Settings, waves: str, adapter: FakeAdapter, tmp_path: Path
) -> None:
    target = prepared(connections, settings, url, model=False)
    target.objects["name"] = waves
    counts = fuzz(target, tmp_path / "run", seed=1, examples=1, known=True, phases="examples,fuzzing")
    assert counts["cases"] >= 100
    said = (tmp_path / "run" / "output.txt").read_text()
    assert (counts["failed checks"], counts["runs that failed"]) == (0, 0), said
