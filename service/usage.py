"""What each API key used, by day (UTC).

Jobs and tasks are counted by the scripts that make and end records, so exactly once. Requests, rows and bytes are
counted in each API process and written every other second; a process that is killed loses what it had not written.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import structlog

from service import keys
from service.connection import Connections
from service.lifecycle import Clock
from service.scripts import Script
from warploom.errors import Unavailable
from warploom.records import UsageDay

DAY_S = 86400
MOST_DAYS = keys.USAGE_TTL_S // DAY_S
FLUSH_S = 2.0

log = structlog.get_logger()
_add = Script("usage_add")


class Usage:
    """Counters of all keys on the state server, and of this process until they are written there.

    Args:
        connections: both Redis roles.
        clock: seconds since the epoch, for tests; default: this machine's.
    """

    def __init__(self, connections: Connections, *, clock: Clock | None = None) -> None:
        self._state = connections.state
        self._clock = clock or time.time
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], Counter[str]] = {}
        self._used_ms: dict[str, int] = {}

    def add(self, key_id: str, **amounts: int) -> None:
        """Count something for a key; written by the next `flush`."""
        now = self._clock()
        with self._lock:
            self._waiting.setdefault((key_id, int(now // DAY_S)), Counter()).update(amounts)
            self._used_ms[key_id] = round(now * 1000)

    def flush(self) -> None:
        """Write what was counted. While the server does not answer, it is kept for the next time."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            used, self._used_ms = self._used_ms, {}
        for place, amounts in waiting.items():
            key_id, day = place
            counts = [part for name, count in amounts.items() if count for part in (name, count)]
            where = [keys.usage(key_id, day), keys.api_key(key_id)]
            try:
                _add(self._state, where, [keys.USAGE_TTL_S, used.get(key_id, 0), *counts])
            except Unavailable as error:
                log.warning("usage is not written", error=error.message)
                with self._lock:
                    self._waiting.setdefault(place, Counter()).update(amounts)

    def days(self, key_id: str, days: int) -> list[UsageDay]:
        """The last `days` days of a key, today first; days without any use are left out."""
        today = int(self._clock() // DAY_S)
        with self._state.translated(), self._state.pipeline(transaction=False) as pipe:
            for day in range(today, today - days, -1):
                pipe.hgetall(keys.usage(key_id, day))
            found = pipe.execute()
        return [
            UsageDay.model_validate(
                {"date": _date(today - back), "key": key_id}
                | {name.decode(): int(count) for name, count in counts.items()}
            )
            for back, counts in enumerate(found)
            if counts
        ]


def _date(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
