"""Ray Tune's callbacks, told to a sweep's book. A module of its own, because loading Tune takes seconds."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from workers.trial import PAUSED, TRIAL
from workers.trials import BOOKS

ROW = ("meta_step", "loss", "loss_ci95", "accuracy", "accuracy_ci95")


class TrialWatch(Callback):
    """Follows the trials of one sweep."""

    def __init__(self, sweep_id: str) -> None:
        self._sweep_id = sweep_id

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial began."""
        BOOKS[self._sweep_id].started(trial.config[TRIAL])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported an evaluation, or that it rests."""
        if PAUSED not in result:
            row = {name: float(result[name]) for name in ROW if name in result}
            BOOKS[self._sweep_id].measured(trial.config[TRIAL], row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end, the scheduler stopped it, or it rests."""
        book, trial_id = BOOKS[self._sweep_id], trial.config[TRIAL]
        state = "succeeded" if book.whole(trial_id) else "stopped"
        book.ended(trial_id, "paused" if PAUSED in trial.last_result else state)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        BOOKS[self._sweep_id].ended(trial.config[TRIAL], "failed", _reason(trial))


def _reason(trial: Any) -> str:
    """The last line of a trial's error."""
    error = trial.get_pickled_error() or trial.get_error()
    lines = [line for line in str(error or "unknown").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "unknown"
