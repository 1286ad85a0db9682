"""Which parts of the service are alive."""

from __future__ import annotations

from collections import Counter

from service import keys
from service.connection import Connections, RoleClient, every
from service.lifecycle import Clock, clock_arg
from service.scripts import Script

_beat = Script("beat")


class Fleet:
    """Heartbeats of live parts, for `/readyz` and `/metrics`."""

    def __init__(self, connections: Connections, *, clock: Clock | None = None) -> None:
        self._shards = connections.shards
        self._clock = clock

    def beat(self, role: str, ident: str, ttl: float) -> None:
        """Say that `ident` of `role` (supervisor, adapter, api…) is alive for `ttl` more seconds."""
        member = f"{role}/{ident}"
        what = (clock_arg(self._clock), member, round(ttl * 1000), keys.FLEET_TTL_S)
        every(self._shards, lambda shard: _beat(shard, [keys.FLEET], what))

    def leave(self, role: str, ident: str) -> None:
        """Say that `ident` ended in good order."""
        self.beat(role, ident, 0)

    def alive(self) -> dict[str, int]:
        """How many of each role are alive; roles without any are absent."""
        members = set().union(*every(self._shards, self._members))
        return dict(Counter(member.decode().partition("/")[0] for member in members))

    def _members(self, shard: RoleClient) -> list[bytes]:
        now = round(self._clock() * 1000) if self._clock else shard.now_ms()
        found: list[bytes] = shard.execute_command("ZRANGEBYSCORE", keys.FLEET, f"({now}", "+inf")
        return found
