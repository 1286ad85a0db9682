"""What can be asked about sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warploom.client.calls import Call, create, filters, get, part, patch, post
from warploom.client.core import Core
from warploom.client.jobs import until_final
from warploom.records import Page, Sweep
from warploom.spec import SweepSpec


def submit(spec: SweepSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Call[Sweep]:
    """Queue a search over fields of a job; `idempotency_key` as for `submit`."""
    return create("/v1/sweeps", Sweep, spec, idempotency_key)


def listing(
    limit: int = 20,
    after: str | None = None,
    state: str | None = None,
    order: str | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Call[Page[Sweep]]:
    """Sweeps, newest first unless `order` is `asc`; all else as for `jobs`."""
    times = {"created_after": created_after, "created_before": created_before}
    wanted = filters(metadata, limit=limit, after=after, state=state, order=order, **times)
    return get("/v1/sweeps", Page[Sweep], **wanted)


def note(id: str, metadata: Mapping[str, str | None]) -> Call[Sweep]:
    """Set pairs of a sweep's metadata, or remove them with None; the others stay."""
    return patch(f"/v1/sweeps/{part(id)}", Sweep, {"metadata": dict(metadata)})


def one(id: str) -> Call[Sweep]:
    """The sweep as it stands, with its trials."""
    return get(f"/v1/sweeps/{part(id)}", Sweep)


def cancel(id: str) -> Call[Sweep]:
    """Ask a sweep to stop."""
    return post(f"/v1/sweeps/{part(id)}/cancel", Sweep, safe=True)


async def wait(core: Core, id: str, timeout_s: float | None = None) -> Sweep:
    """The sweep once it has ended. Raises TimedOut as `Client.wait` does."""
    return await until_final(core, lambda: core.do(one(id)), f"sweep {id}", timeout_s)
