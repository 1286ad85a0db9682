"""API keys: made, rotated, revoked, expired, and who may manage whose."""

from __future__ import annotations

from typing import Any

import pytest

from service import keys
from service.auth import KeyRing
from service.connection import Connections
from service.identity import FIRST
from service.tenancy import Caller
from tests.support.clock import FakeClock
from warploom.errors import Conflict, InvalidInput, NotFound, Unauthenticated


@pytest.fixture
def ring(connections: Connections, clock: FakeClock) -> KeyRing:
    return KeyRing(connections, clock=clock)


def refused(ring: KeyRing, secret: str) -> str:
    with pytest.raises(Unauthenticated) as error:
        ring.identify(secret)
    assert error.value.field == "/headers/authorization" and error.value.rule
    assert secret not in str(error.value) and secret not in str(error.value.value)
    return str(error.value)


def test_a_key_says_who_presents_it(ring: KeyRing) -> None:
    made = ring.create("ci", tenant="acme", scopes=["adapt", "jobs:read"], limits={"jobs": 3})
    caller = ring.identify(made.secret)
    assert caller == Caller(made.id, "acme", frozenset({"adapt", "jobs:read"}), {"jobs": 3})
    assert made.secret.startswith(f"wlk_{made.id.removeprefix('key_')}_") and made.shown and len(made.shown) < 20
    assert made.secret.startswith(made.shown[:-1])


def test_the_secret_is_stored_nowhere(ring: KeyRing, connections: Connections) -> None:
    made = ring.create("ci")
    secret = made.secret[25:]
    stored = connections.state.execute_command("HGETALL", keys.api_key(made.id))
    assert stored and not any(secret.encode() in value for value in stored.values())
    assert "secret" not in ring.get(made.id).model_dump()


def test_no_key_but_the_whole_key_opens(ring: KeyRing) -> None:
    made, other = ring.create("a"), ring.create("b")
    head, tail = made.secret[:24], made.secret[25:]
    swapped = other.secret[:25] + made.secret[25:]
    for wrong in (tail, head, made.secret[:-1] + "\n", made.secret + "\n", swapped, made.id, made.secret.upper()):
        assert "is not known" in refused(ring, wrong)


def test_a_revoked_key_opens_nothing_from_then_on(ring: KeyRing) -> None:
    made = ring.create("ci")
    first = ring.revoke(made.id)
    assert first.revoked_at is not None and ring.revoke(made.id) == first
    assert "revoked" in refused(ring, made.secret)
    with pytest.raises(Conflict):
        ring.rotate(made.id, 60)


def test_an_expired_key_opens_nothing(ring: KeyRing, clock: FakeClock) -> None:
    made = ring.create("ci", expires_at=clock() + 10)
    clock.advance(9)
    assert ring.identify(made.secret).key == made.id
    clock.advance(1)
    assert "expired" in refused(ring, made.secret)


def test_after_a_rotation_both_secrets_work_for_a_while(ring: KeyRing, clock: FakeClock) -> None:
    made = ring.create("ci", scopes=["adapt"])
    new = ring.rotate(made.id, 60)
    assert new.id == made.id and new.secret != made.secret and new.shown and new.old_until == clock() + 60
    assert ring.identify(made.secret) == ring.identify(new.secret)
    clock.advance(60)
    assert "expired" in refused(ring, made.secret)
    assert ring.identify(new.secret).key == made.id


def test_a_rotation_without_grace_is_at_once_and_the_one_before_the_last_is_gone(ring: KeyRing) -> None:
    made = ring.create("ci")
    second = ring.rotate(made.id, 0)
    refused(ring, made.secret)
    third = ring.rotate(made.id, 60)
    assert "not known" in refused(ring, made.secret)
    assert ring.identify(second.secret) == ring.identify(third.secret)


def test_the_operators_key_is_an_admin_that_can_be_revoked_and_given_again(ring: KeyRing) -> None:
    ring.ensure_first("an operator's own key")
    caller = ring.identify("an operator's own key")
    assert caller.key == FIRST and caller.operator
    new = ring.rotate(FIRST, 0)
    refused(ring, "an operator's own key")
    ring.revoke(FIRST)
    refused(ring, new.secret)
    assert ring.ensure_first(None) is None
    ring.ensure_first("an operator's new key")
    assert ring.identify("an operator's new key").operator
    refused(ring, new.secret)


BAD: list[dict[str, Any]] = [
    {"tenant": "A"}, {"tenant": "a/b"}, {"tenant": "a:b"}, {"tenant": "a\n"}, {"tenant": "-"}, {"tenant": "a" * 41},
    {"scopes": []}, {"scopes": ["root"]}, {"scopes": ["adapt", "root"]}, {"expires_at": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_keys_are_not_made(ring: KeyRing, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        ring.create("x", **bad)
    with pytest.raises(InvalidInput):
        ring.rotate(FIRST, -1)
    assert ring.list().data == []


def test_an_admin_manages_the_keys_of_its_own_tenant(connections: Connections, ring: KeyRing) -> None:
    ring.ensure_first("an operator's own key")
    ours, theirs = ring.create("ours", tenant="acme", scopes=["admin"]), ring.create("theirs", tenant="other")
    acme = KeyRing(connections, caller=ring.identify(ours.secret))
    second = acme.create("second")
    assert second.tenant == "acme" and second.created_by == ours.id
    assert [key.id for key in acme.list().data] == [second.id, ours.id]
    for call in (acme.get, acme.revoke, lambda key_id: acme.rotate(key_id, 0)):
        for key_id in (theirs.id, FIRST, "key_none", "key_" + "z" * 20):
            with pytest.raises(NotFound):
                call(key_id)
    with pytest.raises(NotFound):
        acme.create("sneaky", tenant="other")
    operator = KeyRing(connections, caller=ring.identify("an operator's own key"))
    assert len(operator.list().data) == 4 and operator.create("x", tenant="other").tenant == "other"


def test_pages_of_keys_are_complete(ring: KeyRing) -> None:
    made = [ring.create(str(number)).id for number in range(5)]
    page, seen = ring.list(limit=2), []
    while True:
        seen += [key.id for key in page.data]
        if not page.has_more:
            break
        page = ring.list(limit=2, after=seen[-1])
    assert seen == made[::-1]
    with pytest.raises(InvalidInput):
        ring.list(after="job_1")
