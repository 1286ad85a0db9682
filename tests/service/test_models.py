"""The model registry."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest

from service.connection import Connections
from service.models import ModelStore
from warploom.errors import InvalidInput, NotFound
from warploom.records import Model

FACTS: dict[str, Any] = {
    "kind": "regression",
    "input_shape": [1],
    "outputs": 1,
    "parameters": 10,
    "default_steps": 5,
    "default_lr": 0.1,
    "metrics": {"loss": 0.5},
    "spec": {"a": 1},
}


def register(models: ModelStore, name: str, blob: bytes, once: str) -> Model:
    return models.register(name, blob, once=once, job=once, **FACTS)


def test_versions_count_up_and_keep_their_bytes(connections: Connections) -> None:
    models = ModelStore(connections)
    large = bytes(range(256)) * 10_000
    first, second = register(models, "m", large, "job_a"), register(models, "m", b"two", "job_b")
    assert (first.version, second.version) == (1, 2)
    assert (first.bytes, first.sha256) == (len(large), hashlib.sha256(large).hexdigest())
    first = first.model_copy(update={"aliases": []})
    assert models.get("m") == second and models.get("m", 1) == first and models.versions("m").data == [first, second]
    assert models.blob("m", 1) == large and models.blob("m", 2) == b"two"
    register(models, "a", b"x", "job_c")
    assert [(model.name, model.version) for model in models.list().data] == [("a", 1), ("m", 2)]


def test_the_same_token_registers_once(connections: Connections) -> None:
    models = ModelStore(connections)
    threads = [threading.Thread(target=register, args=(models, "m", b"x", "job_a")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert models.get("m").version == 1
    assert register(models, "m", b"other", "job_a").sha256 == hashlib.sha256(b"x").hexdigest()


def test_what_is_not_there_is_not_found(connections: Connections) -> None:
    models = ModelStore(connections)
    register(models, "m", b"x", "job_a")
    for name, version in (("n", None), ("m", 2), ("m", 0)):
        with pytest.raises(NotFound):
            models.get(name, version)
    with pytest.raises(NotFound):
        models.blob("m", 2)
    with pytest.raises(InvalidInput):
        register(models, "a:1", b"x", "job_a")


def test_aliases_move_forwards_and_back(connections: Connections) -> None:
    models = ModelStore(connections)
    for once in ("a", "b", "c"):
        models.register("m", b"blob", **FACTS, once=once)
    assert models.aliases("m") == {"latest": 3} and models.get("m@latest").version == 3
    models.point("m", "stable", 2)
    assert (models.get("m@stable").version, models.get("m", 2).aliases) == (2, ["stable"])
    models.point("m", "stable", 1)
    models.point("m", "latest", 2)
    assert models.aliases("m") == {"latest": 2, "stable": 1}
    assert (models.get("m").version, models.get("m@1").aliases, models.get("m@3").aliases) == (2, ["stable"], [])
    models.register("m", b"blob", **FACTS, once="d")
    assert models.aliases("m") == {"latest": 4, "stable": 1}, "a new version is the latest"
    for _ in range(2):
        models.point("m", "stable", None)
    with pytest.raises(NotFound, match="no alias 'stable'"):
        models.get("m@stable")
    for name, alias, version in (("m", "stable", 9), ("none", "stable", 1), ("none", "stable", None)):
        with pytest.raises(NotFound):
            models.point(name, alias, version)
    for alias in ("1", "", "a b", "x" * 64):
        with pytest.raises(InvalidInput):
            models.point("m", alias, 1)
    with pytest.raises(InvalidInput, match="two answers"):
        models.get("m@latest", 1)
    assert models.get("m@2", 2).version == 2
    page = models.versions("m", after=1, limit=2)
    assert ([model.version for model in page.data], page.has_more) == ([2, 3], True)
