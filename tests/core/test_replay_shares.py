"""A buffer's division among several servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warploom.errors import InvalidInput, WireError
from warploom.replay import ReplayPlan
from warploom.replay_shares import Shares
from warploom.snapshots import pack_shares, unpack_shares


def plan(**options: Any) -> ReplayPlan:
    return ReplayPlan(**{"mode": "async", "units_per_round": 4, "rounds": 9, "max_bytes": 1000, **options})


@given(
    size=st.integers(1, 9),
    servers=st.integers(1, 5),
    rate=st.sampled_from([0.5, 0.75, 1.0, 2.4]),
    least=st.integers(1, 9),
)
def test_shares_are_the_whole_and_hold_what_the_learner_waits_for(
    size: int, servers: int, rate: float, least: int
) -> None:
    whole = plan(units_per_round=size, samples_per_insert=rate, min_units=min(least, 2 * size), max_units=100)
    shares = Shares(whole, servers)
    parts = shares.plans
    assert sum(part.units_per_round for part in parts) == size
    assert sum(part.max_bytes for part in parts) <= whole.max_bytes
    assert sum(part.max_units or 0 for part in parts) == 100
    assert sum(part.need(part.units_per_round) for part in parts) >= whole.need(size)
    shares.check(1)
    units = range(5 * size)
    assert [shares.unit(*shares.place(unit)) for unit in units] == list(units)
    places = {shares.place(unit) for unit in units}
    assert places == {(i, number) for i, part in enumerate(parts) for number in range(5 * part.units_per_round)}


def test_one_server_has_the_plan_itself() -> None:
    assert Shares(plan(max_units=9), 1).plans == [plan(max_units=9)]


def test_budgets_that_a_share_cannot_live_with_are_refused_with_the_numbers() -> None:
    Shares(plan(ahead=2), 2).check(125)
    with pytest.raises(InvalidInput, match=r"on one of 2 replay servers.*4 units of 126 bytes = 504") as caught:
        Shares(plan(ahead=2), 2).check(126)
    assert (caught.value.field, caught.value.value) == ("/replay/max_bytes", 1000)
    uneven = plan(units_per_round=2, samples_per_insert=0.75, max_units=3)
    Shares(uneven, 1).check(1)
    with pytest.raises(InvalidInput, match="4 units on 2 replay servers") as caught:
        Shares(uneven, 2).check(1)
    assert caught.value.field == "/replay/max_trajectories"


def test_a_snapshot_of_other_shares_is_refused() -> None:
    packed = pack_shares([b"a", b""])
    assert unpack_shares(packed, 2) == [b"a", b""]
    for wrong in (packed[:-1], pack_shares([b"a"]), b"x"):
        with pytest.raises(WireError):
            unpack_shares(wrong, 2)
