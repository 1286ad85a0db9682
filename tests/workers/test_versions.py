"""What a job's record says of the code that runs it."""

from __future__ import annotations

from importlib import metadata

import pytest

from service.connection import Connections
from service.jobs import JobStore
from service.settings import Settings
from warploom import __version__
from warploom.spec import JobSpec
from workers.context import Assignment, JobContext, shipped


def test_versions_are_noted_where_the_code_is_copied_and_not_installed(
    connections: Connections, redis_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name == "warploom":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)
    jobs = JobStore(connections)
    job = jobs.create(JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp"}))
    claim = jobs.claim("test", 600)
    assert claim
    JobContext(Assignment(job.id, job.name, claim.generation, job.spec, shipped(redis_settings))).note_versions()
    assert jobs.lineage(job.id).versions["warploom"] == __version__
