"""What can be asked about sweeps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from warploom.client import events
from warploom.client.calls import Call, create, get, given, lister, part, patch, post
from warploom.client.core import Core
from warploom.client.jobs import until_final
from warploom.records import FINAL_STATES, Event, Model, Page, Sweep
from warploom.spec import SweepSpec


def submit(spec: SweepSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Call[Sweep]:
    """Queue a search over fields of a job; `idempotency_key` as for `submit`."""
    return create("/v1/sweeps", Sweep, spec, idempotency_key)


listing = lister("/v1/sweeps", Page[Sweep], "Sweeps")


def note(id: str, metadata: Mapping[str, str | None]) -> Call[Sweep]:
    """Set pairs of a sweep's metadata, or remove them with None; the others stay."""
    return patch(_path(id), Sweep, {"metadata": dict(metadata)})


def one(id: str) -> Call[Sweep]:
    """The sweep as it stands, with its trials."""
    return get(_path(id), Sweep)


def pause(id: str) -> Call[Sweep]:
    """Let a sweep rest, with the trials that run; a repeat changes nothing."""
    return post(_path(id, "/pause"), Sweep, safe=True)


def resume(id: str) -> Call[Sweep]:
    """Queue a paused sweep again; its paused trials go on from where they were. A repeat changes nothing."""
    return post(_path(id, "/resume"), Sweep, safe=True)


def stop(id: str) -> Call[Sweep]:
    """End a sweep early: what its trials have reached counts, and the best becomes a model."""
    return post(_path(id, "/stop"), Sweep, safe=True)


def cancel(id: str) -> Call[Sweep]:
    """End a sweep at once, without a model."""
    return post(_path(id, "/cancel"), Sweep, safe=True)


def promote(id: str, trial: str | None = None, name: str | None = None, alias: str | None = None) -> Call[Model]:
    """Make a model of a trial, also while the sweep runs; a repeat gives the version that is there.

    Args:
        id: the sweep.
        trial: its id; default: the best so far.
        name: of the model; default: the sweep's.
        alias: that is to stand for the version.
    """
    return post(_path(id, "/promote"), Model, safe=True, json=given(trial=trial, name=name, alias=alias))


def follow(core: Core, id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
    """The sweep's events as they happen (kinds `state` and `trial`), until the last; as those of a job."""

    async def ended() -> bool:
        return (await core.do(one(id))).state in FINAL_STATES

    return events.follow(core, Event, _path(id, "/events"), after, ended)


def history(id: str, limit: int = 100, after: str | None = None) -> Call[Page[Event]]:
    """The sweep's events so far, oldest first; `after`: the last id of the page before."""
    return get(_path(id, "/events"), Page[Event], limit=limit, after=after)


async def wait(core: Core, id: str, timeout_s: float | None = None) -> Sweep:
    """The sweep once it has ended. Raises TimedOut as `Client.wait` does."""
    return await until_final(core, lambda: core.do(one(id)), f"sweep {id}", timeout_s)


def _path(id: str, rest: str = "") -> str:
    return f"/v1/sweeps/{part(id)}{rest}"
