"""What can be asked about jobs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from warploom.client import events
from warploom.client.calls import Call, content, create, document, get, given, lister, part, patch, post
from warploom.client.core import Core
from warploom.errors import TimedOut, Unavailable
from warploom.records import (
    FINAL_STATES,
    CheckpointInfo,
    DryRun,
    Event,
    Job,
    Lineage,
    LogLine,
    Metrics,
    Page,
    Sweep,
)
from warploom.spec import JobSpec

LastingT = TypeVar("LastingT", Job, Sweep)
LONGEST_POLL_S = 2.0
# Asking in vain for about a minute: long enough for a service that is started anew.
POLL_FAILURES = 8


def submit(spec: JobSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Call[Job]:
    """Queue a meta-training job.

    Args:
        spec: the job.
        idempotency_key: makes a repeat within 24 hours answer with the job that is there; default: a new one, so that
            a connection that breaks is tried again without a second job.
    """
    return create("/v1/jobs", Job, spec, idempotency_key)


def one(id: str) -> Call[Job]:
    """The job as it stands."""
    return get(_path(id), Job)


listing = lister("/v1/jobs", Page[Job], "Jobs")


def check(spec: JobSpec | Mapping[str, Any]) -> Call[DryRun]:
    """A dry run: the complete spec and an estimate of what the job would do and need. Makes nothing."""
    return post("/v1/jobs", DryRun, safe=True, json=document(spec), params={"dry_run": "true"})


def note(id: str, metadata: Mapping[str, str | None]) -> Call[Job]:
    """Set pairs of a job's metadata, or remove them with None; the others stay."""
    return patch(_path(id), Job, {"metadata": dict(metadata)})


def pause(id: str) -> Call[Job]:
    """Let a job rest; a repeat changes nothing."""
    return post(_path(id, "/pause"), Job, safe=True)


def resume(id: str) -> Call[Job]:
    """Queue a paused job again; a repeat changes nothing."""
    return post(_path(id, "/resume"), Job, safe=True)


def cancel(id: str) -> Call[Job]:
    """Ask a job to stop; the last checkpoint stays."""
    return post(_path(id, "/cancel"), Job, safe=True)


def follow(core: Core, id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
    """The job's events as they happen, until the last; reconnects by itself and misses none."""
    return events.follow(core, Event, _path(id, "/events"), after, lambda: _ended(core, id))


def follow_logs(
    core: Core, id: str, tail: int = 100, worker: str | None = None, level: str | None = None
) -> AsyncGenerator[LogLine, None]:
    """The last lines of the job's log and then more as they come, until the job is over.

    Args:
        core, id: the job.
        tail: how many lines that are there to begin with.
        worker: only those of this worker (`rollout-0`).
        level: only those of this level or above (`warning`).
    """
    wanted = given(tail=tail, worker=worker, level=level)
    return events.follow(core, LogLine, _path(id, "/logs"), None, lambda: _ended(core, id), **wanted)


async def _ended(core: Core, id: str) -> bool:
    return (await core.do(one(id))).state in FINAL_STATES


def logs(id: str, tail: int = 100, worker: str | None = None, level: str | None = None) -> Call[Page[LogLine]]:
    """The last lines of the job's log, oldest first; all else as for `follow_logs`."""
    return get(_path(id, "/logs"), Page[LogLine], tail=tail, worker=worker, level=level)


async def checkpoints(core: Core, id: str) -> list[CheckpointInfo]:
    """The checkpoints that are stored, oldest first: the newest few and the best."""
    return (await core.do(get(_path(id, "/checkpoints"), Page[CheckpointInfo]))).data


def download_checkpoint(id: str, step: int) -> Call[bytes]:
    """A checkpoint's meta-state as safetensors bytes (`p/<name>`, `s/<name>`), checked."""
    return content(_path(id, f"/checkpoints/{int(step)}/weights"), f"the checkpoint {step} of {id}")


def lineage(id: str) -> Call[Lineage]:
    """Where the job comes from and what ran it: enough to do it again."""
    return get(_path(id, "/lineage"), Lineage)


def history(id: str, limit: int = 100, after: str | None = None) -> Call[Page[Event]]:
    """The job's events so far, oldest first.

    Args:
        id: the job.
        limit: most events of one page.
        after: the last id of the page before.
    """
    return get(_path(id, "/events"), Page[Event], limit=limit, after=after)


def metrics(id: str, keys: Sequence[str] = (), from_step: int = 0, max_points: int | None = None) -> Call[Metrics]:
    """The job's numbers over its rounds: those of rounds by name, those of evaluations as `held_out/<name>`.

    Args:
        id: the job.
        keys: only these; empty for all.
        from_step: the first round.
        max_points: most points of each curve; default the service's.
    """
    wanted = list(keys) or None
    return get(_path(id, "/metrics"), Metrics, keys=wanted, from_step=from_step, max_points=max_points)


async def wait(core: Core, id: str, timeout_s: float | None = None) -> Job:
    """The job once it has succeeded, failed or been cancelled; outlives a service that is started anew.

    Raises:
        TimedOut: it had not ended after `timeout_s` seconds.
    """
    return await until_final(core, lambda: core.do(one(id)), f"job {id}", timeout_s)


async def until_final(
    core: Core, ask: Callable[[], Awaitable[LastingT]], what: str, timeout_s: float | None
) -> LastingT:
    """Ask until the answer is in a final state. Raises TimedOut."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s, failures = 0.1, 0
    while True:
        try:
            record = await ask()
            failures = 0
        except Unavailable:
            failures += 1
            if failures > POLL_FAILURES or (deadline is not None and time.monotonic() >= deadline):
                raise
        else:
            if record.state in FINAL_STATES:
                return record
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"{what} is still {record.state} after {timeout_s:g} s", value=record.state)
        await core.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_POLL_S)


def _path(id: str, rest: str = "") -> str:
    return f"/v1/jobs/{part(id)}{rest}"
