"""The key that is shown once, and who is alive."""

from __future__ import annotations

import pytest

from service import keys
from service.auth import KeyRing
from service.connection import Connections
from service.fleet import Fleet
from service.identity import FIRST
from tests.support.clock import FakeClock
from warploom.errors import InvalidInput


def test_the_first_key_is_shown_once_and_never_stored(connections: Connections) -> None:
    ring = KeyRing(connections)
    assert not ring.check("") and not ring.check("anything")
    key = ring.ensure_first(None)
    assert key and key.startswith("wlk_") and len(key) > 40
    assert ring.ensure_first(None) is None and KeyRing(connections).ensure_first(None) is None
    assert ring.check(key)
    for wrong in (key[:-1], key + "x", key.upper(), "", "wlk_ü\ud800"):
        assert not ring.check(wrong)
    stored = connections.state.execute_command("HGETALL", keys.api_key(FIRST))
    secret = key[25:].encode()
    assert stored and not any(secret in value or ring.check(value.decode()) for value in stored.values())


def test_a_given_key_replaces_the_one_before(connections: Connections) -> None:
    ring = KeyRing(connections)
    old = ring.ensure_first(None)
    assert old and ring.ensure_first("an operator's own key") is None
    assert ring.check("an operator's own key") and not ring.check(old)
    with pytest.raises(InvalidInput):
        ring.ensure_first("short")


def test_the_fleet_counts_who_beat_lately(connections: Connections, clock: FakeClock) -> None:
    fleet = Fleet(connections, clock=clock)
    assert fleet.alive() == {}
    for role, ident in (("adapter", "1"), ("adapter", "2"), ("adapter", "2"), ("supervisor", "a/b")):
        fleet.beat(role, ident, 10)
    assert fleet.alive() == {"adapter": 2, "supervisor": 1}
    clock.advance(9)
    fleet.beat("adapter", "1", 10)
    clock.advance(2)
    assert fleet.alive() == {"adapter": 1}
    fleet.leave("adapter", "1")
    assert fleet.alive() == {}
