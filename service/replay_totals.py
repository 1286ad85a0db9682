"""What the buffers of all running jobs hold and did, for monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service import keys
from service.connection import Connections, RoleClient, every

COUNTS = ("bytes", "inserted", "sampled", "rejected", "evicted", "dropped_stale", "waits")
BLOCKED = ("learner", "rollouts")


def totals(connections: Connections) -> dict[str, float]:
    """Sums over the jobs that are held now: `units`, the counters of `ReplayStats`, `blocked_<side>_s`.

    Raises:
        Unavailable: a server does not answer.
    """
    held = [job_id.decode() for job_id in connections.state.execute_command("ZRANGE", keys.leases("job"), 0, -1)]
    count = len(connections.shards)
    shares = range(count) if count > 1 else [None]
    places = [(job_id, share) for job_id in held for share in shares]
    parts = every(connections.shards, lambda shard: _read(shard, places))
    states, ready = ([value for part in parts for value in part[start::2]] for start in (0, 1))
    names = [*COUNTS, *(f"blocked_{side}_s" for side in BLOCKED)]
    sums = {name: sum(float(state.get(name.encode(), 0)) for state in states) for name in names}
    return {"units": float(sum(ready)), **sums}


def _read(shard: RoleClient, places: Sequence[tuple[str, int | None]]) -> list[Any]:
    """State and number of complete units of each buffer, or share of one, that may be there."""
    with shard.translated(), shard.pipeline(transaction=False) as pipe:
        for job_id, share in places:
            pipe.hgetall(keys.replay(job_id, "state", share))
            pipe.zcard(keys.replay(job_id, "ready", share))
        found: list[Any] = pipe.execute()
    return found
