"""What was acknowledged survives the death of the state server (the long form: `python -m tests.chaos.submissions`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import submissions


@pytest.mark.timeout(300)
def test_no_acknowledged_job_is_lost(tmp_path: Path) -> None:
    outcome = submissions.run(tmp_path, 8)
    assert len(set(outcome.acknowledged)) == 8
    assert outcome.lost == []
    assert outcome.twice == []
    assert max(outcome.away_s) < 60
