"""Which requests go into the next batch: all that wait, a little later if more are sure to come."""

from __future__ import annotations

import math
import time
from contextlib import suppress

from service.adaptations import AdaptationQueue, AdaptationRequest
from warploom.errors import Unavailable

BLOCK_MS = 1000
# A batch waits for as many requests as the last one had, for at most this share of the last one's time: a vectorised
# batch costs little more than one request, so that two small ones take longer than a wait and a large one…
WINDOW = 0.5
# …and never for longer than this.
LONGEST_WINDOW_S = 0.05
# An adapter takes no more than it can answer in this time, so that others find work too.
AHEAD_S = 2.0


class Intake:
    """Reads requests in batches.

    Those who were answered together tend to ask again together, but their requests arrive one by one. So after a batch
    of several, the next waits for a moment; after a batch of one it does not, and a lone client loses nothing.

    Args:
        queue: where requests come from.
        name: of the adapter.
        most: requests in a batch.
    """

    def __init__(self, queue: AdaptationQueue, name: str, most: int) -> None:
        self._queue, self._name, self._most = queue, name, most
        self._expected = 1
        self._window_s = 0.0
        self._each_s = 0.0

    def next(self) -> list[AdaptationRequest]:
        """The next batch; empty when nothing came for a second."""
        room = max(1, min(self._most, int(AHEAD_S / self._each_s))) if self._each_s else self._most
        batch = self._queue.read(self._name, room, BLOCK_MS)
        end = time.monotonic() + self._window_s
        while batch and len(batch) < min(room, self._expected):
            left_ms = math.ceil(1000 * (end - time.monotonic()))
            if not (left_ms > 0 and (more := self._more(room - len(batch), left_ms))):
                break
            batch += more
        return batch

    def _more(self, room: int, left_ms: int) -> list[AdaptationRequest]:
        # What was read before is this adapter's and must not be lost with the connection.
        with suppress(Unavailable):
            return self._queue.read(self._name, room, left_ms)
        return []

    def done(self, count: int, seconds: float) -> None:
        """The last batch had so many requests and took so long."""
        self._expected = max(count, self._expected // 2)
        self._window_s = min(WINDOW * seconds, LONGEST_WINDOW_S)
        self._each_s = seconds / count
