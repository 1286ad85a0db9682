"""Sweeps: records, queue, leases, trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service import keys
from service.connection import Connections
from service.lifecycle import Clock, Fields, Ledger, as_fields, clock_arg, common, fenced, missing, transitions
from service.listing import Wanted
from service.scripts import Script
from service.tenancy import Caller
from warploom.records import FINAL_STATES, Failure, Page, Sweep, Trial
from warploom.spec import SweepSpec

_put_trial = Script("put_trial", "_life.lua")
UNDONE = frozenset({"queued", "running", "paused"})  # states of trials that may go on


@dataclass(frozen=True, slots=True)
class SweepClaim:
    """The right to run `sweep` as its current `generation`, until the lease runs out."""

    sweep: Sweep
    generation: int


class SweepStore:
    """Records of all sweeps, and who runs them; the same life as a job's (see `service.jobs.JobStore`).

    Args:
        connections: both Redis roles.
        clock: seconds since the epoch, for tests; default: the state server's own clock.
        caller: whose they are; None for everybody's (see `service.tenancy`).
    """

    def __init__(self, connections: Connections, *, clock: Clock | None = None, caller: Caller | None = None) -> None:
        self._state, self._clock = connections.state, clock
        self._ledger = Ledger(connections, "sweep", clock=clock, caller=caller)

    def create(self, spec: SweepSpec, once: str | None = None) -> Sweep:
        """A new queued sweep, whose record holds the complete spec; or the one that was made under the same key.

        Raises:
            InvalidInput: the key was used for another sweep.
        """
        return self._whole(self._ledger.create(spec.name, spec.to_json(), once, metadata=spec.metadata))

    def get(self, sweep_id: str) -> Sweep:
        """The sweep with its trials, in the order of their ids.

        Raises:
            NotFound: no such sweep.
        """
        return self._whole(self._ledger.read(sweep_id))

    def list(self, wanted: Wanted | None = None, **parts: Any) -> Page[Sweep]:
        """Sweeps, newest first unless asked otherwise.

        Args:
            wanted: which; default the first page.
            parts: the same in parts, as `service.listing.Wanted` takes them.

        Raises:
            InvalidInput: limit out of range, an unknown state or order.
        """
        found, more = self._ledger.page(wanted or Wanted(**parts))
        return Page[Sweep](data=[self._whole(fields) for fields in found], has_more=more)

    def note(self, sweep_id: str, changes: Mapping[str, str | None]) -> Sweep:
        """Change metadata: pairs to set, and names to remove (None).

        Raises:
            NotFound: no such sweep.
            InvalidInput: there would be too many pairs.
        """
        return self._whole(self._ledger.note(sweep_id, changes))

    def claim(self, owner: str, lease_s: float) -> SweepClaim | None:
        """The oldest queued sweep, or one whose lease ran out; None when there is none."""
        claimed = self._ledger.claim(owner, lease_s)
        if claimed is None:
            return None
        fields, generation = claimed
        return SweepClaim(self._whole(fields), generation)

    def heartbeat(self, sweep_id: str, generation: int, lease_s: float) -> str:
        """Renew the lease; the state, which may say that a pause, a stop or a cancel was asked for.

        Raises:
            Fenced: the generation is not current.
        """
        return self._ledger.heartbeat(sweep_id, generation, lease_s)

    def state(self, sweep_id: str) -> str:
        """The sweep's state alone, for those who ask often.

        Raises:
            NotFound: no such sweep.
        """
        found = self._state.execute_command("HGET", keys.record(sweep_id), "state")
        if found is None:
            raise missing("sweep", sweep_id)
        return str(found.decode())

    def put_trial(self, sweep_id: str, generation: int, trial: Trial) -> None:
        """Store or replace one trial; an event of kind "trial" says what became of it.

        Raises:
            Fenced: the generation is not current.
        """
        where = [keys.record(sweep_id), keys.trials(sweep_id), keys.events(sweep_id)]
        last = {"meta_step": trial.curve[-1].get("meta_step")} if trial.curve else {}
        told = json.dumps({"trial": trial.id, "state": trial.state, "best": trial.best, **last})
        what = (clock_arg(self._clock), generation, trial.id, trial.model_dump_json(), told)
        word, *detail = _put_trial(self._state, where, what)
        if word == b"missing":
            raise missing("sweep", sweep_id)
        if word == b"fenced":
            raise fenced(sweep_id, generation, detail[0].decode())

    def finish(
        self,
        sweep_id: str,
        generation: int,
        state: str,
        *,
        error: Failure | None = None,
        model: str | None = None,
        best_trial: str | None = None,
    ) -> Sweep:
        """End the sweep. Repeating the same end changes nothing.

        Raises:
            Fenced: the generation is not current.
            Conflict: the sweep's state does not allow it.
        """
        return self._whole(
            self._ledger.finish(sweep_id, generation, state, error=error, model=model, best_trial=best_trial)
        )

    def release(self, sweep_id: str, generation: int, *, lost: bool = False) -> Sweep:
        """Give a sweep back: a running one queues at its old place, a pausing one is paused, one that is to end becomes
        claimable at once.

        Args:
            sweep_id, generation: from the claim.
            lost: whether this run of it was lost; it counts as a retry.

        Raises:
            Fenced: the generation is not current.
            Conflict: the sweep is not running.
        """
        return self._whole(self._ledger.move("release", sweep_id, generation, lost=lost))

    def pause(self, sweep_id: str) -> Sweep:
        """Ask for a rest: no trial begins, those that run save their state and pause; a repeat changes nothing.

        Raises:
            NotFound: no such sweep.
            Conflict: it has ended, or is being stopped or cancelled.
        """
        return self._whole(self._ledger.move("pause", sweep_id))

    def resume(self, sweep_id: str) -> Sweep:
        """Back into the queue at its old place; paused trials go on from where they were. A repeat changes nothing.

        Raises:
            NotFound: no such sweep.
            Conflict: it has ended, or is being stopped or cancelled.
        """
        return self._whole(self._ledger.move("resume", sweep_id))

    def stop(self, sweep_id: str) -> Sweep:
        """Ask for an early end with a result: no trial begins, those that run end after their round, and the best of
        all becomes a model. A repeat changes nothing.

        Raises:
            NotFound: no such sweep.
            Conflict: it failed, or is being cancelled.
        """
        return self._whole(self._ledger.move("stop", sweep_id))

    def cancel(self, sweep_id: str) -> Sweep:
        """Ask for the end without a result; a repeat changes nothing.

        Raises:
            NotFound: no such sweep.
            Conflict: it succeeded or failed already.
        """
        return self._whole(self._ledger.move("cancel", sweep_id))

    def load(self) -> dict[str, int]:
        """How many sweeps are queued and how many are held: `{"queued": …, "held": …}`."""
        return self._ledger.load()

    def _whole(self, fields: Fields) -> Sweep:
        raw = self._state.execute_command("HGETALL", keys.trials(fields["id"]))
        trials = [Trial.model_validate_json(text) for _, text in sorted(as_fields(raw).items())]
        if fields["state"] in FINAL_STATES:  # whoever ran them was ended with the sweep, and told no more
            trials = [one.model_copy(update={"state": "stopped"}) if one.state in UNDONE else one for one in trials]
        more = {"trials": trials, "best_trial": fields.get("best_trial"), "transitions": transitions(fields)}
        return Sweep.model_validate(common(fields) | more | {"retries": int(fields.get("retries", 0))})
