"""What is known of a sweep's trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from service.sweeps import UNDONE
from warploom.records import RUNNING, Trial
from warploom.spec import SweepSpec


class TrialBook:
    """What is known of each trial, and the only writer of the trials' rows.

    Args:
        spec: the sweep.
        put: stores a row.
        known: rows of earlier runs of the sweep; trials of theirs that did not end are to go on.
        asked: the sweep's state as it is stored.
    """

    def __init__(
        self,
        spec: SweepSpec,
        put: Callable[[Trial], None],
        known: Iterable[Trial] = (),
        asked: Callable[[], str] = lambda: RUNNING,
    ) -> None:
        self._spec, self._put = spec, put
        self.asked = asked
        self.interrupted = False
        self.trials = {trial.id: trial for trial in known}
        self.waiting = sorted(trial.id for trial in self.trials.values() if trial.state in UNDONE)
        for trial_id in self.waiting:
            if self.trials[trial_id].state == "running":  # its run was lost
                self._set(self.trials[trial_id].model_copy(update={"state": "paused"}))

    @property
    def left(self) -> int:
        """Trials that are to be begun or gone on with."""
        return len(self.waiting) + max(self._spec.num_samples - len(self.trials), 0)

    def next(self) -> Trial | None:
        """The next trial that is to go on, once; None when there is none."""
        return self.trials[self.waiting.pop(0)] if self.waiting else None

    def add(self, parameters: dict[str, Any]) -> Trial:
        """A new trial, under the next number."""
        self._set(Trial(id=f"{len(self.trials):05d}", state="queued", parameters=parameters))
        return list(self.trials.values())[-1]

    def started(self, trial_id: str) -> None:
        """A trial began, or goes on."""
        self._set(self.trials[trial_id].model_copy(update={"state": "running"}))

    def measured(self, trial_id: str, row: dict[str, float]) -> None:
        """A trial reported an evaluation; the same one twice counts once."""
        trial = self.trials[trial_id]
        if any(known["meta_step"] == row["meta_step"] for known in trial.curve):
            return
        curve = [*trial.curve, row]
        target = min if self._spec.mode == "min" else max
        self._set(trial.model_copy(update={"curve": curve, "best": target(r[self._spec.metric] for r in curve)}))

    def ended(self, trial_id: str, state: str, error: str | None = None) -> None:
        """A trial is over, or rests: succeeded, stopped, failed; paused."""
        self.interrupted |= state == "paused"
        self._set(self.trials[trial_id].model_copy(update={"state": state, "error": error}))

    def whole(self, trial_id: str) -> bool:
        """Whether a trial went through all of its rounds."""
        trial = self.trials[trial_id]
        rounds = int(trial.parameters.get("training.rounds", self._spec.job.training.rounds))
        return any(row["meta_step"] >= rounds for row in trial.curve)

    def _set(self, trial: Trial) -> None:
        self.trials[trial.id] = trial
        self._put(trial)


# The books of the sweeps that this process drives, by sweep id. Tune copies what it is given deeply, and connections
# cannot be copied: callbacks and searchers know their book by name alone.
BOOKS: dict[str, TrialBook] = {}
