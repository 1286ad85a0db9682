"""How an actor's end is told: its own error, a lack of memory, or its death."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RaySystemError, RayTaskError

from warploom.errors import DataMissing, OutOfMemory, WarploomError
from workers import placement


def raised_by(cause: Exception) -> RayTaskError:
    return RayTaskError("run", "traceback", cause)


UNMADE = "The actor died because of an error raised in its creation task, ray::LearnerWorker.__init__()"
ENDS: list[tuple[Exception, type[Exception], str]] = [
    (raised_by(DataMissing("no archive")), DataMissing, "no archive"),
    (raised_by(MemoryError("numpy")), OutOfMemory, "MemoryError: numpy"),
    (raised_by(RuntimeError("DefaultCPUAllocator: can't allocate memory")), OutOfMemory, "can't allocate"),
    (raised_by(KeyError("x")), WarploomError, "KeyError: 'x'"),
    (OutOfMemoryError("the node is at 96 %"), OutOfMemory, "96 %"),
    (ActorDiedError(), placement.ActorLost, "died"),
    (
        RaySystemError(f"{UNMADE}\nImportError: no such family"),
        placement.ActorLost,
        "made: ImportError: no such family",
    ),
    (RaySystemError("the raylet is gone"), placement.ActorLost, "gone"),
]


@pytest.mark.parametrize(("end", "told", "message"), ENDS)
def test_an_actors_end(monkeypatch: pytest.MonkeyPatch, end: Exception, told: type[Exception], message: str) -> None:
    def get(_future: Any) -> Any:
        raise end

    monkeypatch.setattr(placement.ray, "get", get)
    with pytest.raises(told, match=message) as caught:
        placement.result(object())
    assert type(caught.value) is told
