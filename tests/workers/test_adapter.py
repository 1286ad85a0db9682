"""The adapter's answers: right, grouped, and never silent."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from service.adaptations import AdaptationQueue, AdaptationRequest
from service.connection import Connections
from service.models import ModelStore
from service.settings import Settings
from tests.support.waiting import wait_until
from warploom import wire
from warploom.adaptation import ServedModel, Support
from warploom.build import build
from warploom.codec import pack_model
from warploom.errors import InvalidInput, NotFound, TimedOut, Unavailable, WarploomError
from warploom.spec import JobSpec
from workers.adapter import Adapter
from workers.context import shipped
from workers.evaluator import Origin, register
from workers.intake import Intake
from workers.warm import WarmModels

SPEC = JobSpec.parse(
    {
        "algorithm": {"name": "warpgrad", "inner_lr": 0.05, "inner_steps": 4},
        "task": "sinusoid",
        "model": {"name": "warp_mlp", "hidden": [8]},
    }
)


@pytest.fixture
def queue(connections: Connections) -> AdaptationQueue:
    return AdaptationQueue(connections, ttl_s=60)


@pytest.fixture
def adapter(connections: Connections, redis_settings: Settings, queue: AdaptationQueue) -> Adapter:
    algorithm = build(SPEC)
    models = ModelStore(connections)
    register(models, "sine", SPEC, algorithm, algorithm.init(3), {"loss": 1.0}, Origin(once="x"))
    made = Adapter(shipped(redis_settings), "a1")
    made.attach(connections)
    return made


def request(seed: int = 0, rows: int = 5, **changes: Any) -> AdaptationRequest:
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(rows, 1)).astype("f4"), rng.normal(size=(3, 1)).astype("f4")
    payload = wire.encode("support", {"support_x": x, "support_y": np.sin(x), "query_x": q})
    fields: dict[str, Any] = {
        "id": AdaptationQueue.new_id(),
        "op": "adapt",
        "model": "sine",
        "version": 1,
        "steps": 4,
        "lr": 0.05,
        "seed": 0,
        "payload": payload,
        "deadline": time.time() + 60,
    }
    return AdaptationRequest(**{**fields, **changes})


def serve(adapter: Adapter, queue: AdaptationQueue, *requests: AdaptationRequest) -> None:
    for one in requests:
        queue.submit(one)
    adapter.serve(queue.read("a1", 32, 0))


def outputs(queue: AdaptationQueue, one: AdaptationRequest, kind: str = "adaptation") -> Any:
    arrays, _ = wire.decode(kind, queue.wait(one.id, 1))
    return arrays["outputs"]


def expected(one: AdaptationRequest) -> torch.Tensor:
    arrays, _ = wire.decode("support", one.payload)
    algorithm = build(SPEC)
    model = ServedModel.load(pack_model(SPEC, algorithm.init(3)))
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    support = Support(
        tensors["support_x"], tensors["support_y"], tensors["query_x"], steps=one.steps, lr=one.lr, seed=one.seed
    )
    return model.adapt([support])[0].outputs_Q


def test_each_of_many_gets_its_own_answer(adapter: Adapter, queue: AdaptationQueue) -> None:
    many = [request(seed, rows) for seed, rows in enumerate((5, 5, 7, 5, 7))]
    many.append(request(9, lr=0.01))
    many.append(request(10, steps=1))
    serve(adapter, queue, *many)
    for one in many:
        np.testing.assert_allclose(outputs(queue, one), expected(one), rtol=1e-4, atol=1e-5)


def test_sizes_that_are_near_are_adapted_in_one_call(
    adapter: Adapter, queue: AdaptationQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = ServedModel.adapt
    monkeypatch.setattr(ServedModel, "adapt", lambda self, group: sizes.append(len(group)) or original(self, group))
    serve(adapter, queue, *(request(seed, rows) for seed, rows in enumerate((5, 7, 5, 9, 12))))
    assert sorted(sizes) == [2, 3]


def test_predict_uses_the_kept_parameters(adapter: Adapter, queue: AdaptationQueue) -> None:
    first = request(1)
    serve(adapter, queue, first)
    arrays, _ = wire.decode("support", first.payload)
    again = request(op="predict", adaptation=first.id, payload=wire.encode("support", {"query_x": arrays["query_x"]}))
    serve(adapter, queue, again)
    np.testing.assert_allclose(outputs(queue, again, "prediction"), outputs(queue, first), rtol=1e-5, atol=1e-6)


def test_a_bad_request_fails_alone(adapter: Adapter, queue: AdaptationQueue) -> None:
    good = request(1)
    lost = request(2, model="nobody")
    wild = request(3, lr=1e30, steps=20)
    gone = request(4, op="predict", adaptation=AdaptationQueue.new_id())
    torn = request(5, payload=b"nonsense")
    serve(adapter, queue, good, lost, wild, gone, torn)
    assert outputs(queue, good).shape == (3, 1)
    for one, kind, words in (
        (lost, NotFound, "nobody"),
        (wild, InvalidInput, "diverged"),
        (gone, NotFound, "adapt"),
        (torn, WarploomError, "blob"),
    ):
        with pytest.raises(kind, match=words):
            queue.wait(one.id, 1)


def test_an_unexpected_error_is_answered_and_the_adapter_lives(
    adapter: Adapter, queue: AdaptationQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ServedModel, "adapt", lambda self, group: 1 / 0)
        broken = request(1)
        serve(adapter, queue, broken)
        with pytest.raises(WarploomError, match="ZeroDivisionError"):
            queue.wait(broken.id, 1)
    good = request(2)
    serve(adapter, queue, good)
    assert outputs(queue, good).shape == (3, 1)


def test_equal_content_is_adapted_once_and_answered_from_what_is_kept(
    adapter: Adapter, queue: AdaptationQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = request(1, content="abc")
    serve(adapter, queue, first)
    monkeypatch.setattr(ServedModel, "adapt", lambda self, group: pytest.fail("adapted again"))
    second = request(1, content="abc")
    serve(adapter, queue, second)
    assert wire.decode("adaptation", queue.wait(second.id, 1))[1]["id"] == first.id
    np.testing.assert_allclose(outputs(queue, second), outputs(queue, first), rtol=1e-5, atol=1e-6)
    monkeypatch.undo()
    queue.kept.forget(first.id)
    third = request(1, content="abc")
    serve(adapter, queue, third)
    assert wire.decode("adaptation", queue.wait(third.id, 1))[1]["id"] == third.id


def test_a_request_that_waited_too_long_is_not_computed(
    adapter: Adapter, queue: AdaptationQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = request(1, deadline=time.time() + 0.2)
    queue.submit(late)
    (read,) = queue.read("a1", 32, 0)
    wait_until(lambda: time.time() > late.deadline)
    monkeypatch.setattr(ServedModel, "adapt", lambda self, group: pytest.fail("computed"))
    adapter.serve([read])
    with pytest.raises(TimedOut, match="deadline"):
        queue.wait(late.id, 1)


def test_models_are_kept_ready_within_their_budget(adapter: Adapter, connections: Connections) -> None:
    models = ModelStore(connections)
    algorithm = build(SPEC)
    for token in ("y", "z"):
        register(models, "sine", SPEC, algorithm, algorithm.init(3), {"loss": 1.0}, Origin(once=token))
    size = models.get("sine").bytes
    warm = WarmModels(models, 2 * size)
    for version in (1, 2, 1, 3):
        warm.get("sine", version)
    assert warm.names() == [("sine", 1), ("sine", 3)]
    assert warm.get("sine", 1) is warm.get("sine", 1)
    assert WarmModels(models, 1).get("sine", 2).spec == SPEC, "the one in use stays, however large"


def test_a_batch_waits_for_those_who_asked_before_and_a_lone_client_does_not(queue: AdaptationQueue) -> None:
    intake = Intake(queue, "a1", 32)
    many = [request(seed) for seed in range(3)]
    for one in many[:2]:
        queue.submit(one)
    assert len(intake.next()) == 2
    intake.done(2, 0.1)
    waits: list[int] = []
    read = queue.read

    def watched(consumer: str, count: int, block_ms: int) -> list[AdaptationRequest]:
        waits.append(block_ms)
        return read(consumer, count, block_ms)

    queue.read = watched  # type: ignore[method-assign]
    queue.submit(many[2])
    assert len(intake.next()) == 1
    assert len(waits) == 2, "after two together it looks for a second"
    intake.done(1, 0.1)
    waits.clear()
    queue.submit(request(7))
    assert len(intake.next()) == 1
    assert len(waits) == 1, "after one alone it does not"


def test_a_batch_is_not_forgotten_when_redis_goes_away(
    adapter: Adapter, queue: AdaptationQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, original = Intake(queue, "a1", 32), adapter._queue.finish
    asked, late = request(1), request(2, deadline=time.time() - 1)
    for one in (asked, late):
        queue.submit(one)

    def away(_: Any) -> Any:
        raise Unavailable("gone")

    monkeypatch.setattr(adapter._queue, "finish", away)
    left = adapter.turn(intake, [])
    assert [one.id for one in left] == [asked.id], "what nobody waits for any more is let go"
    monkeypatch.setattr(adapter._queue, "finish", original)
    assert adapter.turn(intake, left) == []
    np.testing.assert_allclose(outputs(queue, asked), expected(asked), rtol=1e-4, atol=1e-5)


def test_what_was_read_stays_when_redis_goes_away_before_more_comes(
    queue: AdaptationQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(queue, "a1", 32)
    intake.done(8, 0.1)
    queue.submit(request())
    original, reads = queue.read, list[int]()

    def read(name: str, count: int, block_ms: int) -> Any:
        reads.append(count)
        if len(reads) > 1:
            raise Unavailable("gone")
        return original(name, count, block_ms)

    monkeypatch.setattr(queue, "read", read)
    assert len(intake.next()) == 1
    assert reads == [32, 31]
