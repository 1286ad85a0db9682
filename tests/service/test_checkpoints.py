"""Checkpoints are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.checkpoints import CheckpointStore
from warploom.errors import InvalidInput


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, "job_1")


def save(store: CheckpointStore, *rounds: int) -> list[Path]:
    return [store.save(number, {"meta": b"m%d" % number, "opt": b""}, {"loss": number}) for number in rounds]


def test_the_newest_is_read_back(store: CheckpointStore) -> None:
    assert store.latest() is None
    save(store, 1, 10, 2)
    found = store.latest()
    assert found and (found.round, found.blobs, found.info) == (10, {"meta": b"m10", "opt": b""}, {"loss": 10})


def test_three_stay(store: CheckpointStore) -> None:
    save(store, 1, 2, 3, 4, 5)
    assert store.rounds() == [3, 4, 5]


def test_saving_a_round_again_replaces_it(store: CheckpointStore) -> None:
    save(store, 1)
    store.save(1, {"meta": b"again"}, {})
    found = store.latest()
    assert found and found.blobs == {"meta": b"again"} and store.rounds() == [1]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped byte": lambda path: (path / "meta").write_bytes(b"mX"),
    "a truncated file": lambda path: (path / "meta").write_bytes(b""),
    "a missing file": lambda path: (path / "meta").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "a torn manifest": lambda path: (path / "manifest.json").write_text('{"round": 2, "sha'),
    "a foreign manifest": lambda path: (path / "manifest.json").write_text("[1]"),
    "another round's manifest": lambda path: (path / "manifest.json").write_text(
        json.dumps({**json.loads((path / "manifest.json").read_text()), "round": 7})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_passed_over(store: CheckpointStore, damage: str) -> None:
    _, newest = save(store, 1, 2)
    DAMAGE[damage](newest)
    found = store.latest()
    assert found and found.round == 1


def test_the_draft_of_a_writer_that_died_does_no_harm(store: CheckpointStore, tmp_path: Path) -> None:
    draft = tmp_path / "job_1" / "checkpoints" / ".draft-1-round-0000000009"
    draft.mkdir(parents=True)
    (draft / "meta").write_bytes(b"half")
    assert store.latest() is None
    save(store, 1)
    assert not draft.exists() and store.rounds() == [1]


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "manifest.json", ".hidden"])
def test_names_that_are_no_plain_files_are_refused(store: CheckpointStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.save(1, {name: b""}, {})
    assert store.rounds() == []
