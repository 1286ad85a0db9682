"""Noticing that a job does not get on."""

from __future__ import annotations

import time
from collections.abc import Callable

from service.events import EventLog
from warploom.errors import Stalled
from warploom.replay import Replay

LOOK_S = 2.0


class StallWatch:
    """Looks for any progress of one job: a stored unit of work, or a line of its history.

    Args:
        job_id: the job.
        events, replay: where its progress is seen.
        most_s: seconds without any.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        job_id: str,
        events: EventLog,
        replay: Replay,
        most_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job_id, self._events, self._replay = job_id, events, replay
        self._most_s, self._clock = most_s, clock
        self._seen: tuple[object, ...] = ()
        self._since = self._looked = clock()

    def check(self) -> None:
        """Look, if the last look is long enough ago.

        Raises:
            Stalled: no progress for too long.
            Unavailable: Redis does not answer; the time until it does again does not count.
        """
        now = self._clock()
        if now - self._looked < min(LOOK_S, self._most_s / 4):
            return
        away = now - self._looked > self._most_s / 2  # this process stood still itself
        stats = self._replay.stats()
        seen = (stats.inserted, stats.version, self._events.newest(self._job_id))
        if seen != self._seen or away:
            self._seen, self._since = seen, now
        self._looked = now
        if now - self._since > self._most_s:
            raise Stalled(
                f"no progress for training.max_stall_s, {self._most_s:g} seconds: no unit of work was stored and "
                "nothing was reported",
                field="/training/max_stall_s",
                rule=f"at most {self._most_s:g} s without progress",
            )

    def forget(self) -> None:
        """Start the time anew: what was seen last was an outage."""
        self._since = self._looked = self._clock()
