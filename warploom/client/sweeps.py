"""What can be asked about sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warploom.client.calls import Call, create, get, part, post
from warploom.client.core import Core
from warploom.client.jobs import until_final
from warploom.records import Page, Sweep
from warploom.spec import SweepSpec


def submit(spec: SweepSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Call[Sweep]:
    """Queue a search over fields of a job; `idempotency_key` as for `submit`."""
    return create("/v1/sweeps", Sweep, spec, idempotency_key)


def listing(limit: int = 20, after: str | None = None) -> Call[Page[Sweep]]:
    """Sweeps, newest first."""
    return get("/v1/sweeps", Page[Sweep], limit=limit, after=after)


def one(id: str) -> Call[Sweep]:
    """The sweep as it stands, with its trials."""
    return get(f"/v1/sweeps/{part(id)}", Sweep)


def cancel(id: str) -> Call[Sweep]:
    """Ask a sweep to stop."""
    return post(f"/v1/sweeps/{part(id)}/cancel", Sweep, safe=True)


async def wait(core: Core, id: str, timeout_s: float | None = None) -> Sweep:
    """The sweep once it has ended. Raises TimedOut as `Client.wait` does."""
    return await until_final(core, lambda: core.do(one(id)), f"sweep {id}", timeout_s)
