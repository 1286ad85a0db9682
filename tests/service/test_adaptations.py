"""Adaptation requests: to adapters and back."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from service import keys
from service.adaptations import BLOCK_MS, INLINE_BYTES, LARGE_BYTES, AdaptationQueue, AdaptationRequest, Outcome
from service.connection import Connections
from service.sharded_adaptations import queue_on
from tests.support.waiting import wait_until
from warploom.errors import InvalidInput, NotFound, TimedOut, Unauthenticated, Unavailable


@pytest.fixture(params=["one server", "two"])
def connections(request: pytest.FixtureRequest, connections: Connections) -> Connections:
    """Connections to one replay server or to two."""
    two: Connections = request.getfixturevalue("sharded")
    return connections if request.param == "one server" else two


@pytest.fixture
def queue(connections: Connections) -> AdaptationQueue:
    return queue_on(connections, ttl_s=100)


def request(payload: bytes = b"support", wait_s: float = 60) -> AdaptationRequest:
    return AdaptationRequest(
        id=AdaptationQueue.new_id(),
        op="adapt",
        model="m",
        version=1,
        steps=5,
        lr=0.1,
        seed=0,
        payload=payload,
        deadline=time.time() + wait_s,
    )


@pytest.mark.parametrize("size", [0, INLINE_BYTES, INLINE_BYTES + 1, LARGE_BYTES + 1])
def test_a_request_comes_through_whole_and_its_answer_back(queue: AdaptationQueue, size: int) -> None:
    asked = request(bytes(size))
    queue.submit(asked)
    (got,) = queue.read("a", 8, 0)
    assert got == asked
    assert queue.answer(got, b"done") is True
    assert queue.wait(asked.id, 1) == b"done"
    assert queue.wait(asked.id, 1) == b"done", "an answer can be read again"
    assert queue.pending() == 0


def test_adapters_share_the_requests(queue: AdaptationQueue) -> None:
    asked = [request() for _ in range(5)]
    for one in asked:
        queue.submit(one)
    first, second = queue.read("a", 3, 0), queue.read("b", 8, 0)
    assert [one.id for one in first + second] == [one.id for one in asked]
    assert queue.read("c", 8, 0) == []


def test_requests_of_a_silent_adapter_are_taken_over(queue: AdaptationQueue) -> None:
    queue.submit(request())
    (lost,) = queue.read("dead", 8, 0)
    assert queue.read("b", 8, 0, idle_ms=60_000) == []
    (found,) = queue.read("b", 8, 0, idle_ms=0)
    assert found == lost
    assert queue.answer(found, b"mine") is True
    assert queue.answer(lost, b"late") is False
    assert queue.wait(found.id, 1) == b"mine"
    assert queue.read("b", 8, 0, idle_ms=0) == []


def test_submitting_twice_is_submitting_once(queue: AdaptationQueue) -> None:
    asked = request()
    queue.submit(asked)
    queue.submit(asked)
    (got,) = queue.read("a", 8, 0)
    queue.answer(got, b"x")
    queue.submit(asked)
    assert queue.read("a", 8, 0) == []


def test_a_failure_is_raised_as_what_it_was(queue: AdaptationQueue) -> None:
    for error in (InvalidInput("too long", field="steps", rule="at most 5", value=9), NotFound("gone")):
        asked = request()
        queue.submit(asked)
        (got,) = queue.read("a", 8, 0)
        queue.fail(got, error)
        with pytest.raises(type(error)) as caught:
            queue.wait(asked.id, 1)
        assert type(caught.value) is type(error)
        assert caught.value.as_problem() == error.as_problem()
    assert not isinstance(error, Unauthenticated)


def test_nobody_works_on_what_nobody_waits_for(queue: AdaptationQueue) -> None:
    asked = request(wait_s=-1)
    queue.submit(asked)
    assert queue.read("a", 8, 0) == []
    with pytest.raises(TimedOut, match="deadline"):
        queue.wait(asked.id, 1)


def test_a_request_whose_payload_is_gone_is_answered(queue: AdaptationQueue, connections: Connections) -> None:
    asked = request(bytes(INLINE_BYTES + 1))
    queue.submit(asked)
    connections.replay.delete(keys.payload(asked.id))
    assert queue.read("a", 8, 0) == []
    with pytest.raises(TimedOut):
        queue.wait(asked.id, 1)


def test_an_answer_that_comes_between_two_looks_is_seen(
    queue: AdaptationQueue, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request()
    queue.submit(asked)
    (read,) = queue.read("a", 1, 0)
    look = connections.replay.execute_command

    def answered_meanwhile(*command: Any) -> Any:
        if command[0] == "GETRANGE":
            queue.answer(read, b"ok")
        return look(*command)

    monkeypatch.setattr(connections.replay, "execute_command", answered_meanwhile)
    assert queue.reply(asked.id) == b"ok"


def test_the_wait_ends_in_time(queue: AdaptationQueue) -> None:
    begin = time.monotonic()
    with pytest.raises(TimedOut, match=r"adapt_unknown within 0.05 seconds"):
        queue.wait("adapt_unknown", 0.05)
    assert 0.05 <= time.monotonic() - begin < BLOCK_MS / 1000


def test_waiting_and_reading_block_until_something_comes(queue: AdaptationQueue) -> None:
    got: list[bytes] = []
    asked = request()
    waiter = threading.Thread(target=lambda: got.append(queue.wait(asked.id, 20)))
    reader = threading.Thread(target=lambda: [queue.answer(one, b"ok") for one in queue.read("a", 1, 2000)])
    waiter.start()
    reader.start()
    queue.submit(asked)
    wait_until(lambda: got == [b"ok"], what="the answer")
    waiter.join()
    reader.join()


def test_adapters_survive_a_server_that_forgot_everything(queue: AdaptationQueue, connections: Connections) -> None:
    queue.submit(request())
    queue.read("a", 1, 0)
    connections.replay.flushall()
    assert queue.read("a", 1, 0) == []
    asked = request()
    queue.submit(asked)
    assert [one.id for one in queue.read("a", 1, 0)] == [asked.id]


def test_adapted_parameters_are_kept_for_a_while(queue: AdaptationQueue, connections: Connections) -> None:
    queue.kept.keep("adapt_1", {"id": "adapt_1", "steps": 5}, b"parameters")
    assert queue.kept.get("adapt_1") == ({"id": "adapt_1", "steps": 5}, b"parameters")
    assert 90_000 < connections.replay.pttl(keys.adapted("adapt_1")) <= 100_000
    connections.replay.pexpire(keys.adapted("adapt_1"), 0)
    with pytest.raises(NotFound, match="expired"):
        queue.kept.get("adapt_1")
    queue.kept.keep("adapt_2", {}, b"")
    queue.kept.forget("adapt_2")
    with pytest.raises(NotFound):
        queue.kept.get("adapt_2")


def test_a_request_is_the_same_wherever_its_stream_entry_is() -> None:
    asked = request()
    assert replace(asked, entry="1-0") == asked


def test_requests_of_a_live_adapter_stay_with_it_and_those_of_a_dead_one_go_at_once(queue: AdaptationQueue) -> None:
    assert queue.renew("a") == 0
    queue.submit(request())
    (held,) = queue.read("a", 8, 0)
    assert queue.release("a") == 1
    assert queue.renew("a") == 1
    assert queue.read("b", 8, 0, idle_ms=5000) == []
    assert queue.release("a") == 1
    (found,) = queue.read("b", 8, 0, idle_ms=5000)
    assert found == held
    assert queue.renew("a") == 0


def test_an_answer_comes_to_the_inbox_too(queue: AdaptationQueue, connections: Connections) -> None:
    asked = replace(request(), inbox=keys.inbox("api1"))
    queue.submit(asked)
    (got,) = queue.read("a", 1, 0)
    assert queue.finish([Outcome(got, b"yes"), Outcome(got, b"no")]) == [True, False]
    entries = connections.replay.xrange(asked.inbox)
    assert [fields for _, fields in entries] == [{b"id": asked.id.encode(), b"reply": b"+yes"}]


def test_an_id_stands_for_one_request(queue: AdaptationQueue) -> None:
    asked = replace(request(), fingerprint="f1")
    assert queue.submit(asked) is True
    assert queue.submit(asked) is False
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        queue.submit(replace(asked, fingerprint="f2"))


def test_no_more_wait_than_may(connections: Connections) -> None:
    queue = AdaptationQueue(connections, most_waiting=2)
    for _ in range(2):
        queue.submit(request())
    with pytest.raises(Unavailable, match="too many"):
        queue.submit(request())


def test_the_oldest_parameters_make_room(connections: Connections) -> None:
    queue = AdaptationQueue(connections, ttl_s=100, budget_bytes=3000)
    for i in range(4):
        assert queue.kept.keep(f"adapt_{i}", {}, bytes(900), content=f"c{i}") is True
    assert queue.kept.get_many([f"adapt_{i}" for i in range(4)])[:2] == [None, ({}, bytes(900))]
    assert queue.kept.books() == {"bytes": 3 * 902, "dropped": 1}
    for content in ("c3", "", "c9", "c0"):
        queue.submit(replace(request(), content=content))
    before = [one.before for one in queue.read("a", 8, 0)]
    assert before == ["adapt_3", "", "", "adapt_0"] and queue.kept.get_many(["adapt_0"]) == [None]
    queue.kept.forget("adapt_2")
    queue.kept.forget("adapt_2")
    assert queue.kept.books()["bytes"] == 2 * 902
    assert queue.kept.keep("adapt_9", {}, bytes(4000)) is False
    assert queue.kept.books()["dropped"] == 2


def test_what_expired_leaves_the_books(connections: Connections) -> None:
    brief, queue = AdaptationQueue(connections, ttl_s=0.05), AdaptationQueue(connections, ttl_s=100)
    brief.kept.keep("adapt_1", {}, bytes(100))
    queue.kept.keep("adapt_2", {}, bytes(100))
    wait_until(lambda: queue.kept.get_many(["adapt_1"]) == [None], what="the first to expire")
    queue.kept.keep("adapt_3", {}, bytes(100))
    assert queue.kept.books()["bytes"] == 2 * 102
