"""Ray Tune's callbacks, told to a sweep's book. A module of its own, because loading Tune takes seconds."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from workers.trials import BOOKS

ROW = ("meta_step", "loss", "loss_ci95", "accuracy", "accuracy_ci95")


class TrialWatch(Callback):
    """Follows the trials of one sweep."""

    def __init__(self, sweep_id: str) -> None:
        self._sweep_id = sweep_id

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial began."""
        BOOKS[self._sweep_id].started(trial.trial_id, dict(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported an evaluation."""
        row = {name: float(result[name]) for name in ROW if name in result}
        BOOKS[self._sweep_id].measured(trial.trial_id, row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end, or the scheduler stopped it."""
        book = BOOKS[self._sweep_id]
        whole = trial.last_result.get("meta_step", 0) >= book.rounds(trial.config)
        book.ended(trial.trial_id, "succeeded" if whole else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        BOOKS[self._sweep_id].ended(trial.trial_id, "failed", _reason(trial))


def _reason(trial: Any) -> str:
    """The last line of a trial's error."""
    error = trial.get_pickled_error() or trial.get_error()
    lines = [line for line in str(error or "unknown").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "unknown"
