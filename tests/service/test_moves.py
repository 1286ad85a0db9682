"""Every action in every state: what the table allows happens, with one event, and nothing else does."""

from __future__ import annotations

import pytest

from service import keys
from service.connection import Connections
from service.events import EventLog
from service.lifecycle import Kind, Ledger
from service.moves import MOVES, STATES
from tests.support.clock import FakeClock
from warploom.errors import Conflict
from warploom.records import FINAL_STATES, HELD_STATES

LEASE_S = 10.0
ACTIONS = ("claim", "release", "pause", "resume", "stop", "cancel", "succeeded", "failed", "cancelled")
# Where each action leads from each state, in the order of ACTIONS; "-" is refused, "=" changes nothing. Written down
# once more, so that a slip in the table of the service is seen.
TABLE = {
    #              claim       release    pause    resume   stop       cancel      succeeded  failed  cancelled
    "queued":     "running     =          paused   =        stopping   cancelled   -          -       -",
    "running":    "running     queued     pausing  =        stopping   cancelling  succeeded  failed  -",
    "pausing":    "pausing     paused     =        running  stopping   cancelling  succeeded  failed  -",
    "paused":     "-           =          =        queued   stopping   cancelled   -          -       -",
    "stopping":   "stopping    =          -        -        =          cancelling  succeeded  failed  cancelled",
    "cancelling": "cancelling  =          -        -        -          =           succeeded  failed  cancelled",
    "succeeded":  "-           -          -        -        =          -           =          -       -",
    "failed":     "-           -          -        -        -          -           -          =       -",
    "cancelled":  "-           -          -        -        =          =           -          -       =",
}  # fmt: skip
WAY = {
    "queued": (),
    "running": ("claim",),
    "pausing": ("claim", "pause"),
    "paused": ("pause",),
    "stopping": ("pause", "stop"),
    "cancelling": ("claim", "cancel"),
    "succeeded": ("claim", "succeeded"),
    "failed": ("claim", "failed"),
    "cancelled": ("cancel",),
}
KINDS: tuple[Kind, ...] = ("job", "sweep")
CASES = [
    (state, action, outcome)
    for state, row in TABLE.items()
    for action, outcome in zip(ACTIONS, row.split(), strict=True)
]


def test_the_table_is_about_every_state_and_action() -> None:
    assert set(TABLE) == STATES
    assert set(ACTIONS) == set(MOVES)
    assert {state for row in MOVES.values() for pair in row.items() for state in pair} == STATES


class Life:
    """One record, and what is seen of it."""

    def __init__(self, connections: Connections, kind: Kind, clock: FakeClock) -> None:
        self.ledger, self.connections, self.kind, self.clock = (
            Ledger(connections, kind, clock=clock),
            connections,
            kind,
            clock,
        )
        self.id = self.ledger.create(None, {})["id"]

    def do(self, action: str) -> None:
        generation = int(self.ledger.read(self.id)["generation"])
        if action == "claim":
            self.clock.advance(LEASE_S + 1)
            if self.ledger.claim("me", LEASE_S) is None:
                raise Conflict("nothing to claim")
        elif action in FINAL_STATES:
            self.ledger.finish(self.id, generation, action, error=None)
        else:
            self.ledger.move(action, self.id, generation if action == "release" else None)

    def state(self) -> str:
        return self.ledger.read(self.id)["state"]

    def told(self) -> list[str]:
        return [event.data["state"] for event in EventLog(self.connections).list(self.id) if event.kind == "state"]

    def check_places(self) -> None:
        """The queue holds it exactly while it is queued, the leases while it is held."""
        state, client = self.state(), self.connections.state
        queued = client.execute_command("ZSCORE", keys.queue(self.kind), self.id) is not None
        held = client.execute_command("ZSCORE", keys.leases(self.kind), self.id) is not None
        assert (queued, held) == (state == "queued", state in HELD_STATES)
        assert ("ended_at" in self.ledger.read(self.id)) == (state in FINAL_STATES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("state", "action", "outcome"), CASES)
def test_every_move(
    connections: Connections, clock: FakeClock, kind: Kind, state: str, action: str, outcome: str
) -> None:
    life = Life(connections, kind, clock)
    for step in WAY[state]:
        life.do(step)
    before = life.told()
    assert life.state() == before[-1] == state
    if outcome == "-":
        with pytest.raises(Conflict):
            life.do(action)
    else:
        life.do(action)
    after = state if outcome in "-=" else outcome
    assert life.state() == after
    assert life.told() == (before if outcome in "-=" else [*before, after])
    life.check_places()
