"""Jobs: records, queue, leases."""

from __future__ import annotations

import builtins
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.connection import Connections
from service.lifecycle import Clock, Fields, Ledger, common, seconds, transitions
from service.listing import Wanted
from service.tenancy import Caller
from warploom.records import HELD_STATES, CheckpointInfo, Failure, Job, Lineage, Page, Progress, Sweep
from warploom.spec import JobSpec


@dataclass(frozen=True, slots=True)
class JobClaim:
    """The right to run `job` as its current `generation`, until the lease runs out."""

    job: Job
    generation: int


class JobStore:
    """Records of all jobs, and who runs them.

    Args:
        connections: both Redis roles.
        clock: seconds since the epoch, for tests; default: the state server's own clock.
        caller: whose they are; None for everybody's (see `service.tenancy`).
    """

    def __init__(self, connections: Connections, *, clock: Clock | None = None, caller: Caller | None = None) -> None:
        self._ledger = Ledger(connections, "job", clock=clock, caller=caller)

    def create(
        self, spec: JobSpec, once: str | None = None, *, sent: Any = None, forked_from: str | None = None
    ) -> Job:
        """A new queued job, whose record holds the complete spec; or the one that was made under the same key.

        Args:
            spec: the job.
            once: the caller's own key, good for 24 hours.
            sent: the spec as the caller sent it.
            forked_from: the checkpoint that it begins with.

        Raises:
            InvalidInput: the key was used for another job.
        """
        return as_job(
            self._ledger.create(
                spec.name, spec.to_json(), once, metadata=spec.metadata, sent=sent, forked_from=forked_from
            )
        )

    def get(self, job_id: str) -> Job:
        """The job.

        Raises:
            NotFound: no such job.
        """
        return as_job(self._ledger.read(job_id))

    def list(self, wanted: Wanted | None = None, **parts: Any) -> Page[Job]:
        """Jobs, newest first unless asked otherwise.

        Args:
            wanted: which; default the first page.
            parts: the same in parts, as `service.listing.Wanted` takes them.

        Raises:
            InvalidInput: limit out of range, an unknown state or order.
        """
        found, more = self._ledger.page(wanted or Wanted(**parts))
        return Page[Job](data=[as_job(fields) for fields in found], has_more=more)

    def note(self, job_id: str, changes: Mapping[str, str | None]) -> Job:
        """Change metadata: pairs to set, and names to remove (None).

        Raises:
            NotFound: no such job.
            InvalidInput: there would be too many pairs.
        """
        return as_job(self._ledger.note(job_id, changes))

    def claim(self, owner: str, lease_s: float) -> JobClaim | None:
        """The oldest queued job, or one whose lease ran out; None when there is none.

        Args:
            owner: who claims (shown to operators).
            lease_s: seconds until others may claim it, unless a heartbeat comes.
        """
        claimed = self._ledger.claim(owner, lease_s)
        if claimed is None:
            return None
        fields, generation = claimed
        return JobClaim(as_job(fields), generation)

    def heartbeat(
        self,
        job_id: str,
        generation: int,
        lease_s: float,
        *,
        phase: str | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Renew the lease and report; the state, which may say that a pause or a cancel was asked for.

        Args:
            job_id: the job.
            generation: from the claim.
            lease_s: seconds from now.
            phase: starting, training, evaluating, exporting; one that comes later than the last makes an event of kind
                "phase" and a transition, any other is passed over.
            progress: numbers to show.

        Raises:
            Fenced: the generation is not current, or the job is not held by anyone any more.
        """
        told = progress.model_dump_json() if progress is not None else None
        return self._ledger.heartbeat(job_id, generation, lease_s, phase=phase, progress=told)

    def finish(
        self, job_id: str, generation: int, state: str, *, error: Failure | None = None, model: str | None = None
    ) -> Job:
        """End the job. Repeating the same end changes nothing.

        Args:
            job_id: the job.
            generation: from the claim.
            state: succeeded, failed, or (after a cancel was asked for) cancelled.
            error: why it failed.
            model: name of the model that it made.

        Raises:
            Fenced: the generation is not current.
            Conflict: the job's state does not allow it.
        """
        return as_job(self._ledger.finish(job_id, generation, state, error=error, model=model))

    def release(self, job_id: str, generation: int, *, lost: bool = False) -> Job:
        """Give a job back: a running one queues at its old place, a pausing one is paused, a cancelling one becomes
        claimable at once.

        Args:
            job_id: the job.
            generation: from the claim.
            lost: whether this run of it was lost; it counts as a retry.

        Raises:
            Fenced: the generation is not current.
            Conflict: the job is not running.
        """
        return as_job(self._ledger.move("release", job_id, generation, stored={"phase": ""}, lost=lost))

    def pause(self, job_id: str) -> Job:
        """Ask for a rest: queued becomes paused, running becomes pausing and then paused; a repeat changes nothing.

        Raises:
            NotFound: no such job.
            Conflict: the job has ended or is being cancelled.
        """
        return as_job(self._ledger.move("pause", job_id))

    def resume(self, job_id: str) -> Job:
        """Back into the queue at its old place; the next run goes on from the last checkpoint.

        A repeat changes nothing; while pausing, the run that is on goes on.

        Raises:
            NotFound: no such job.
            Conflict: the job has ended or is being cancelled.
        """
        return as_job(self._ledger.move("resume", job_id))

    def cancel(self, job_id: str) -> Job:
        """Ask for the end: queued or paused becomes cancelled, running becomes cancelling; a repeat changes nothing.

        Raises:
            NotFound: no such job.
            Conflict: the job succeeded or failed already (field "state", the rule, the state).
        """
        return as_job(self._ledger.move("cancel", job_id))

    def annotate(self, job_id: str, generation: int, **values: Any) -> None:
        """Note JSON values in the job's record: `checkpoints`, `versions`.

        Raises:
            Fenced: the generation is not current.
            NotFound: no such job.
        """
        self._ledger.annotate(job_id, generation, values)

    def checkpoints(self, job_id: str) -> builtins.list[CheckpointInfo]:
        """The checkpoints that its learner said are stored, oldest first.

        Raises:
            NotFound: no such job.
        """
        stored = json.loads(self._ledger.read(job_id).get("checkpoints", "[]"))
        return [CheckpointInfo.model_validate(one) for one in stored]

    def lineage(self, job_id: str) -> Lineage:
        """Where the job comes from and what ran it.

        Raises:
            NotFound: no such job.
        """
        fields = self._ledger.read(job_id)
        job = as_job(fields)
        return Lineage(
            job=job.id,
            sent=json.loads(fields.get("sent", "null")),
            spec=job.spec,
            seed=job.spec["training"]["seed"],
            versions=json.loads(fields.get("versions", "{}")),
            forked_from=job.forked_from,
            model=job.model,
        )

    def position(self, job_id: str) -> int | None:
        """Its place in the queue, from 1; None when it is not queued."""
        return self._ledger.position(job_id)

    def load(self) -> dict[str, int]:
        """How many jobs are queued and how many are held: `{"queued": …, "held": …}`."""
        return self._ledger.load()


def ran_s(record: Job | Sweep) -> float:
    """Seconds that a job or sweep was held by a run, up to its last change of state.

    Example:
        >>> from warploom.records import Transition
        >>> steps = (("queued", 0), ("running", 5), ("paused", 9), ("queued", 20))
        >>> past = [Transition(state=state, at=at) for state, at in steps]
        >>> ran_s(Job(id="j", name="j", state="queued", spec={}, created_at=0, transitions=past))
        4.0
    """
    pairs = itertools.pairwise(record.transitions)
    return sum(after.at - before.at for before, after in pairs if before.state in HELD_STATES)


def as_job(fields: Fields) -> Job:
    """Stored fields as the API's object."""
    progress = json.loads(fields.get("progress", "{}"))
    progress["heartbeat_at"] = seconds(fields.get("heartbeat_at"))
    return Job.model_validate(
        {
            **common(fields),
            "phase": fields.get("phase") or None,
            "retries": int(fields.get("retries", 0)),
            "lost_in_a_row": int(fields.get("lost_in_a_row", 0)),
            "progress": progress,
            "transitions": transitions(fields),
            "forked_from": json.loads(fields.get("forked_from", "null")),
        }
    )
