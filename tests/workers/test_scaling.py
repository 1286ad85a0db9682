"""The number of adapters follows the queue."""

from __future__ import annotations

from workers.scaling import GROW_AFTER_S, SETTLE_S, SHRINK_AFTER_S, Scale


def test_a_long_queue_brings_one_adapter_at_a_time_up_to_the_most() -> None:
    scale = Scale(1, 3, each=10)
    assert scale.wanted(31, 0.0) == 1
    assert scale.wanted(31, GROW_AFTER_S) == 2
    assert scale.wanted(31, GROW_AFTER_S + SETTLE_S / 2) == 2, "the new one has hardly started"
    later = GROW_AFTER_S + SETTLE_S
    assert scale.wanted(31, later) == 3
    assert [scale.wanted(500, later + SETTLE_S + i) for i in range(3)] == [3, 3, 3]


def test_a_moment_is_no_reason() -> None:
    scale = Scale(1, 3, each=10)
    assert [scale.wanted(waiting, i * 0.6) for i, waiting in enumerate((50, 5, 50, 5, 50))] == [1] * 5


def test_an_empty_queue_takes_them_away_down_to_the_least() -> None:
    scale = Scale(1, 2, each=1)
    scale.wanted(9, 0.0)
    assert scale.wanted(9, 2.0) == 2
    assert scale.wanted(0, 20.0) == 2
    assert scale.wanted(1, 50.0) == 2, "one asks: the calm begins anew"
    assert scale.wanted(0, 60.0) == 2
    assert scale.wanted(0, 60.0 + SHRINK_AFTER_S) == 1
    assert scale.wanted(0, 500.0) == 1


def test_without_adapters_there_may_be_some() -> None:
    scale = Scale(0, 1, each=1)
    assert scale.wanted(0, 0.0) == 0
    scale.wanted(5, 1.0)
    assert scale.wanted(5, 3.0) == 1
