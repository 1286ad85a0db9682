"""Checkpoints of a job: whole or not there, the last few and the best."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.settings import Settings
from service.storage import open_storage
from warploom.errors import InvalidInput

MANIFEST = "manifest.json"
MEASURES = "measures.json"
PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}"
ENTRY = r"round-(\d{10})-g(\d{6})"
OnSkip = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint that was read back and whose hashes fit.

    Args:
        round: rounds done.
        generation: of the job that wrote it.
        blobs: contents by name.
        info: the JSON values that were saved with it.
    """

    round: int
    generation: int
    blobs: dict[str, bytes]
    info: dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a checkpoint lies. What a later generation wrote comes later: a replaced learner may still be writing."""

    generation: int
    round: int

    @property
    def entry(self) -> str:
        return f"round-{self.round:010d}-g{self.generation:06d}"


class CheckpointStore:
    """The checkpoints of one job, under `root/<job_id>/checkpoints`.

    Args:
        root: directory or URL of all jobs (`Settings.checkpoints_at`).
        job_id: the job.
        generation: of the writer.
        keep: how many of the newest stay; the best one that was measured stays too.
    """

    def __init__(self, root: Path | str, job_id: str, *, generation: int = 0, keep: int = 3) -> None:
        self._storage = open_storage(f"{str(root).rstrip('/')}/{job_id}/checkpoints")
        self._generation = generation
        self._keep = keep

    @classmethod
    def of(cls, settings: Settings, job_id: str, *, generation: int = 0) -> CheckpointStore:
        """The store of a job, as the operator set it up."""
        return cls(settings.checkpoints_at, job_id, generation=generation, keep=settings.checkpoints_kept)

    def save(self, round: int, blobs: dict[str, bytes], info: dict[str, Any]) -> str:
        """Write a checkpoint; it is durable when this returns. Saving a round again replaces it.

        Args:
            round: rounds done.
            blobs: contents by name (letters, digits, `.`, `_`, `-`).
            info: JSON values.

        Returns:
            Where it lies.

        Raises:
            InvalidInput: a name that is not a plain file name.
            Unavailable: no room, no right, no answer; earlier checkpoints are as they were.
        """
        for name in blobs:
            if name == MANIFEST or not re.fullmatch(PLAIN_NAME, name):
                raise InvalidInput(f"bad blob name {name!r}", field="blobs", rule=PLAIN_NAME, value=name)
        hashes = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
        sizes = {name: len(blob) for name, blob in blobs.items()}
        manifest = {"round": round, "generation": self._generation, "sha256": hashes, "bytes": sizes, "info": info}
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        where = self._storage.put(_Place(self._generation, round).entry, {**blobs, MANIFEST: text})
        self._prune()
        return where

    def latest(self, on_skip: OnSkip | None = None) -> Checkpoint | None:
        """The newest checkpoint that is whole; torn and corrupt ones are passed over.

        Args:
            on_skip: told the round of each that is passed over, and why.

        Raises:
            Unavailable: the storage does not answer.
        """
        for place in reversed(self._places()):
            found = self._read(place, on_skip)
            if found is not None:
                return found
        return None

    def read(self, round: int) -> Checkpoint | None:
        """The checkpoint of this round, if it is there and whole; the newest generation's, if several wrote one."""
        for place in reversed(self._places()):
            found = self._read(place, None) if place.round == round else None
            if found is not None:
                return found
        return None

    def clear(self) -> None:
        """Delete all that is stored; what cannot be deleted now stays."""
        for place in self._places():
            self._storage.remove(place.entry)

    def rounds(self) -> list[int]:
        """Rounds of the checkpoints that are stored, whole or not, in ascending order."""
        return sorted({place.round for place in self._places()})

    def measured(self, round: int, loss: float) -> None:
        """Note how good the checkpoint of a round is; one that is not stored is left out. Only the evaluator calls it.

        Args:
            round: rounds done.
            loss: on held-out tasks; less is better.

        Raises:
            Unavailable: as `save`.
        """
        stored = self.rounds()
        if round in stored and math.isfinite(loss):
            known = {told: value for told, value in self.measures().items() if told in stored}
            self._storage.put_file(MEASURES, json.dumps(known | {round: loss}).encode())

    def measures(self) -> dict[int, float]:
        """The held-out loss by round, of the checkpoints that were measured."""
        try:
            return {int(told): float(value) for told, value in json.loads(self._storage.get(MEASURES)).items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    def best(self) -> int | None:
        """The round of the stored checkpoint with the least held-out loss; None when none was measured."""
        stored = self.rounds()
        known = {told: value for told, value in self.measures().items() if told in stored}
        return min(known, key=lambda told: (known[told], told)) if known else None

    def _places(self) -> list[_Place]:
        matches = (re.fullmatch(ENTRY, name) for name in self._storage.entries())
        return sorted(_Place(int(match.group(2)), int(match.group(1))) for match in matches if match)

    def _prune(self) -> None:
        best = self.best()
        for place in self._places()[: -self._keep]:
            if place.round != best:
                self._storage.remove(place.entry)

    def _read(self, place: _Place, on_skip: OnSkip | None) -> Checkpoint | None:
        try:
            return self._checked(place)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            if on_skip is not None:
                on_skip(place.round, str(error) or type(error).__name__)
            return None

    def _checked(self, place: _Place) -> Checkpoint:
        manifest = json.loads(self._storage.get(f"{place.entry}/{MANIFEST}"))
        if manifest["round"] != place.round or manifest["generation"] != place.generation:
            raise ValueError("its manifest is another checkpoint's")
        blobs = {}
        for name, told in manifest["sha256"].items():
            if not re.fullmatch(PLAIN_NAME, name):
                raise ValueError(f"its manifest names a file {name!r}")
            blobs[name] = self._storage.get(f"{place.entry}/{name}")
            if hashlib.sha256(blobs[name]).hexdigest() != told:
                raise ValueError(f"{name} does not have the SHA-256 that its manifest says")
        return Checkpoint(place.round, place.generation, blobs, manifest["info"])
