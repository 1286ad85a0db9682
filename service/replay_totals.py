"""What the buffers of all running jobs hold and did, for monitoring."""

from __future__ import annotations

from service import keys
from service.connection import Connections

COUNTS = ("bytes", "inserted", "sampled", "rejected", "evicted", "dropped_stale", "waits")
BLOCKED = ("learner", "rollouts")


def totals(connections: Connections) -> dict[str, float]:
    """Sums over the jobs that are held now: `units`, the counters of `ReplayStats`, `blocked_<side>_s`.

    Raises:
        Unavailable: a server does not answer.
    """
    held = [job_id.decode() for job_id in connections.state.execute_command("ZRANGE", keys.leases("job"), 0, -1)]
    replay = connections.replay
    with replay.translated(), replay.pipeline(transaction=False) as pipe:
        for job_id in held:
            pipe.hgetall(keys.replay(job_id, "state"))
            pipe.zcard(keys.replay(job_id, "ready"))
        found = pipe.execute()
    states, ready = found[::2], found[1::2]
    names = [*COUNTS, *(f"blocked_{side}_s" for side in BLOCKED)]
    sums = {name: sum(float(state.get(name.encode(), 0)) for state in states) for name in names}
    return {"units": float(sum(ready)), **sums}
