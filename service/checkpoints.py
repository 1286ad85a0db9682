"""Checkpoints of a job on disk: whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warploom.errors import InvalidInput

MANIFEST = "manifest.json"
PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}"
ROUND_DIR = r"round-(\d{10})"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint that was read back and whose hashes fit.

    Args:
        round: rounds done.
        blobs: contents by name.
        info: the JSON values that were saved with it.
        path: its directory.
    """

    round: int
    blobs: dict[str, bytes]
    info: dict[str, Any]
    path: Path


class CheckpointStore:
    """The checkpoints of one job, under `root/<job_id>/checkpoints`.

    Args:
        root: directory of all jobs (`Settings.jobs_dir`).
        job_id: the job.
        keep: how many of the newest stay.
    """

    def __init__(self, root: Path, job_id: str, *, keep: int = 3) -> None:
        self._folder = root / job_id / "checkpoints"
        self._keep = keep

    def save(self, round: int, blobs: dict[str, bytes], info: dict[str, Any]) -> Path:
        """Write a checkpoint; it is on disk when this returns. Saving a round again replaces it.

        Args:
            round: rounds done.
            blobs: contents by name (letters, digits, `.`, `_`, `-`).
            info: JSON values.

        Returns:
            Its directory.

        Raises:
            InvalidInput: a name that is not a plain file name.
        """
        for name in blobs:
            if name == MANIFEST or not re.fullmatch(PLAIN_NAME, name):
                raise InvalidInput(f"bad blob name {name!r}", field="blobs", rule=PLAIN_NAME, value=name)
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._path(round)
        draft = self._folder / f".draft-{os.getpid()}-{target.name}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for name, blob in blobs.items():
            _write(draft / name, blob)
        hashes = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
        manifest = {"round": round, "sha256": hashes, "info": info}
        _write(draft / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
        _sync_folder(draft)
        if target.exists():  # a directory cannot be replaced in one step, and this round's content is the same
            shutil.rmtree(target)
        draft.rename(target)
        _sync_folder(self._folder)
        self._prune()
        return target

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; torn and corrupt ones are passed over."""
        for round in reversed(self.rounds()):
            found = _read(self._path(round), round)
            if found is not None:
                return found
        return None

    def rounds(self) -> list[int]:
        """Rounds of the checkpoints on disk, whole or not, in ascending order."""
        if not self._folder.is_dir():
            return []
        matches = (re.fullmatch(ROUND_DIR, entry.name) for entry in self._folder.iterdir())
        return sorted(int(match.group(1)) for match in matches if match)

    def _path(self, round: int) -> Path:
        return self._folder / f"round-{round:010d}"

    def _prune(self) -> None:
        for round in self.rounds()[: -self._keep]:
            shutil.rmtree(self._path(round), ignore_errors=True)
        for draft in self._folder.glob(".draft-*"):  # of a writer that died: a job has one writer at a time
            shutil.rmtree(draft, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path, round: int) -> Checkpoint | None:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        blobs = {name: (path / name).read_bytes() for name in manifest["sha256"]}
        whole = all(hashlib.sha256(blobs[name]).hexdigest() == told for name, told in manifest["sha256"].items())
        if manifest["round"] != round or not whole:
            return None
        return Checkpoint(round, blobs, manifest["info"], path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
