"""What is known of a sweep's trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warploom.records import Trial
from warploom.spec import SweepSpec


class TrialBook:
    """What is known of each trial, and the only writer of the trials' rows."""

    def __init__(self, spec: SweepSpec, put: Callable[[Trial], None]) -> None:
        self._spec, self._put = spec, put
        self.trials: dict[str, Trial] = {}

    def started(self, trial_id: str, parameters: dict[str, Any]) -> None:
        """A trial began."""
        self._set(Trial(id=trial_id, state="running", parameters=parameters))

    def measured(self, trial_id: str, row: dict[str, float]) -> None:
        """A trial reported an evaluation; the same one twice counts once."""
        trial = self.trials[trial_id]
        if any(known["meta_step"] == row["meta_step"] for known in trial.curve):
            return
        curve = [*trial.curve, row]
        target = min if self._spec.mode == "min" else max
        self._set(trial.model_copy(update={"curve": curve, "best": target(r[self._spec.metric] for r in curve)}))

    def ended(self, trial_id: str, state: str, error: str | None = None) -> None:
        """A trial is over: succeeded, stopped (by the scheduler), or failed."""
        self._set(self.trials[trial_id].model_copy(update={"state": state, "error": error}))

    def rounds(self, parameters: dict[str, Any]) -> int:
        """Rounds of a whole trial with these parameters."""
        return int(parameters.get("training.rounds", self._spec.job.training.rounds))

    def best(self) -> Trial | None:
        """The trial with the best evaluation; None when there is none."""
        measured = [trial for trial in self.trials.values() if trial.best is not None]
        target = min if self._spec.mode == "min" else max
        return target(measured, key=lambda trial: trial.best or 0.0) if measured else None

    def _set(self, trial: Trial) -> None:
        self.trials[trial.id] = trial
        self._put(trial)


# The books of the sweeps that this process drives, by sweep id. Tune copies its callbacks deeply, and connections
# cannot be copied: a callback knows its book by name alone.
BOOKS: dict[str, TrialBook] = {}
