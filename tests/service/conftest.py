"""Fixtures of the service's tests."""

from __future__ import annotations

import pytest

from service.connection import Connections
from service.jobs import JobStore
from tests.support.clock import FakeClock
from warploom.spec import JobSpec

SPEC = JobSpec.parse({"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp"})


@pytest.fixture
def spec() -> JobSpec:
    """A small job."""
    return SPEC


@pytest.fixture
def jobs(connections: Connections, clock: FakeClock) -> JobStore:
    """A store whose time the test moves."""
    return JobStore(connections, clock=clock)
