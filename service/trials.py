"""What the trials of a sweep leave in the storage of checkpoints: a state to go on from, and the best model so far."""

from __future__ import annotations

from collections.abc import Mapping

from service.checkpoints import CheckpointStore
from service.settings import Settings
from service.storage import open_storage

BEST = "best.safetensors"
KEPT = 2


class TrialFiles:
    """The files of one trial, under `root/<sweep_id>/<trial_id>`.

    Args:
        settings: say where (`Settings.checkpoints_at`).
        sweep_id, trial_id: the trial.
        generation: of the sweep that writes.
    """

    def __init__(self, settings: Settings, sweep_id: str, trial_id: str, *, generation: int = 0) -> None:
        root = f"{settings.checkpoints_at.rstrip('/')}/{sweep_id}"
        self._states = CheckpointStore(root, trial_id, generation=generation, keep=KEPT)
        self._storage = open_storage(f"{root}/{trial_id}")

    def save(self, round: int, blobs: Mapping[str, bytes]) -> None:
        """Write the state after `round` rounds. Raises Unavailable: earlier ones are as they were."""
        self._states.save(round, dict(blobs), {})

    def load(self) -> dict[str, bytes] | None:
        """The newest state that is whole, or None. Raises Unavailable."""
        found = self._states.latest()
        return None if found is None else found.blobs

    def clear(self) -> None:
        """Delete the states; the best model stays."""
        self._states.clear()

    def put_best(self, model: bytes) -> None:
        """Replace the best model. Raises Unavailable: the one before is as it was."""
        self._storage.put_file(BEST, model)

    def best(self) -> bytes | None:
        """The best model, or None when there is none within reach. Raises Unavailable."""
        try:
            return self._storage.get(BEST)
        except FileNotFoundError:
            return None
