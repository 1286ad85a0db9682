"""Checkpoints are whole or not there, in a directory and at a URL."""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service import storage
from service.checkpoints import CheckpointStore
from service.settings import Settings
from warploom.errors import InvalidInput, SetupError, Unavailable

buckets = itertools.count()


# A bucket to try a real object store on: `s3://bucket`, with the package s3fs, its credentials and its endpoint.
BUCKET = os.environ.get("WARPLOOM_TEST_BUCKET", "")


@pytest.fixture(params=["directory", "file URL", "memory URL", *(["bucket"] if BUCKET else [])])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kinds = {
        "directory": str(tmp_path),
        "file URL": tmp_path.as_uri(),
        "memory URL": f"memory://checkpoints-{next(buckets)}",
        "bucket": f"{BUCKET}/checkpoints-{secrets.token_hex(8)}",
    }
    return kinds[request.param]


@pytest.fixture
def store(root: str) -> CheckpointStore:
    return CheckpointStore(root, "job_1")


def save(store: CheckpointStore, *rounds: int) -> list[str]:
    return [store.save(number, {"meta": b"m%d" % number, "opt": b""}, {"loss": number}) for number in rounds]


def test_the_newest_is_read_back(store: CheckpointStore) -> None:
    assert store.latest() is None
    save(store, 1, 10, 2)
    found = store.latest()
    assert found and (found.round, found.blobs, found.info) == (10, {"meta": b"m10", "opt": b""}, {"loss": 10})
    older = store.read(2)
    assert older and older.blobs["meta"] == b"m2"
    assert store.read(7) is None


def test_three_stay_and_the_best_that_was_measured(store: CheckpointStore) -> None:
    save(store, 1, 2)
    store.measured(1, 0.5)
    store.measured(2, 0.1)
    store.measured(3, 0.0)
    store.measured(1, float("nan"))
    save(store, 3, 4, 5, 6)
    assert store.rounds() == [2, 4, 5, 6]
    assert (store.best(), store.measures()) == (2, {1: 0.5, 2: 0.1})
    store.measured(6, 0.05)
    save(store, 7)
    assert (store.rounds(), store.best()) == ([5, 6, 7], 6)


def test_saving_a_round_again_replaces_it(store: CheckpointStore) -> None:
    save(store, 1)
    store.save(1, {"meta": b"again"}, {})
    found = store.latest()
    assert found and found.blobs == {"meta": b"again"} and store.rounds() == [1]


def test_what_a_replaced_learner_still_writes_is_not_gone_on_from(root: str) -> None:
    old, new = CheckpointStore(root, "job_1", generation=1), CheckpointStore(root, "job_1", generation=2)
    save(old, 10)
    save(new, 12)
    old.save(14, {"meta": b"zombie"}, {})
    old.save(12, {"meta": b"zombie"}, {})
    for reader in (old, new):
        found = reader.latest()
        assert found and (found.round, found.generation, found.blobs["meta"]) == (12, 2, b"m12")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped byte": lambda path: (path / "meta").write_bytes(b"mX"),
    "a truncated file": lambda path: (path / "meta").write_bytes(b""),
    "a missing file": lambda path: (path / "meta").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "a torn manifest": lambda path: (path / "manifest.json").write_text('{"round": 2, "sha'),
    "a foreign manifest": lambda path: (path / "manifest.json").write_text("[1]"),
    "another round's manifest": lambda path: _edit(path, round=7),
    "a manifest that leads outside": lambda path: _edit(path, sha256={"../../secret": ""}),
}


def _edit(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_passed_over_and_named(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(tmp_path, "job_1")
    _, newest = save(store, 1, 2)
    DAMAGE[damage](Path(newest))
    skipped: list[tuple[int, str]] = []
    found = store.latest(lambda round, reason: skipped.append((round, reason)))
    assert found and found.round == 1
    assert [round for round, _ in skipped] == [2]
    assert skipped[0][1]


def test_drafts_of_writers_that_died_go_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "job_1" / "checkpoints"
    old, new = folder / ".draft-old", folder / ".draft-new"
    for draft in (old, new):
        draft.mkdir(parents=True)
        (draft / "meta").write_bytes(b"half")
    os.utime(old, (1, 1))
    store = CheckpointStore(tmp_path, "job_1")
    assert store.latest() is None
    save(store, 1)
    assert not old.exists() and new.exists() and store.rounds() == [1]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, "job_1")
    save(store, 1)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            save(store, 2)
    found = store.latest()
    assert found and found.round == 1
    assert not list((tmp_path / "job_1" / "checkpoints").glob(".draft-*"))
    save(store, 2)
    assert store.rounds() == [1, 2]


class Flaky(MemoryFileSystem):
    """Fails now and then, as object stores do."""

    cachable = False
    failures = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if type(self).failures:
            type(self).failures -= 1
            raise TimeoutError("slow down")
        super().pipe_file(path, value, mode, **kwargs)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> CheckpointStore:
    monkeypatch.setattr(storage, "FIRST_WAIT_S", 0.0)
    store = CheckpointStore(f"memory://flaky-{next(buckets)}", "job_1")
    store._storage._fs = Flaky()  # type: ignore[attr-defined]
    return store


def test_a_url_is_tried_several_times(flaky: CheckpointStore) -> None:
    Flaky.failures = storage.TRIES - 1
    save(flaky, 1)
    assert flaky.rounds() == [1]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_url_that_fails_for_good_leaves_no_whole_checkpoint(flaky: CheckpointStore, written: int) -> None:
    """Also when the round was there before: half overwritten is not whole."""
    Flaky.failures = 0
    save(flaky, 1, 2)
    flaky._storage._fs.pipe_file = _failing_after(flaky._storage._fs.pipe_file, written)  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="cannot be written"):
        flaky.save(2, {"meta": b"m2", "opt": b""}, {})
    found = flaky.latest()
    assert found and found.round == 1


def _failing_after(put: Callable[..., None], calls: int) -> Callable[..., None]:
    def failing(*args: Any) -> None:
        nonlocal calls
        if calls == 0:
            raise TimeoutError("slow down")
        calls -= 1
        put(*args)

    return failing


def test_an_unknown_url_is_refused_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        CheckpointStore("nope://bucket", "job_1")
    assert (caught.value.field, caught.value.value) == ("checkpoint_url", "nope://bucket/job_1/checkpoints")
    assert Settings(checkpoint_url="memory://x", home=tmp_path).checkpoints_at == "memory://x"
    assert Settings(home=tmp_path).checkpoints_at == str(tmp_path / "jobs")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "manifest.json", ".hidden"])
def test_names_that_are_no_plain_files_are_refused(store: CheckpointStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.save(1, {name: b""}, {})
    assert store.rounds() == []
