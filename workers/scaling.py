"""How many adapters there should be."""

from __future__ import annotations

# A queue must be long for so many seconds before an adapter is added…
GROW_AFTER_S = 1.0
# …which needs so many seconds to start before its effect can be seen…
SETTLE_S = 8.0
# …and empty for so many seconds before one goes.
SHRINK_AFTER_S = 60.0


class Scale:
    """Follows the depth of the queue, one adapter at a time; more slowly down than up.

    Args:
        least, most: bounds, `least` ≤ `most`.
        each: waiting requests that an adapter can have before there should be another.
    """

    def __init__(self, least: int, most: int, each: int) -> None:
        self._least, self._most, self._each = least, max(least, most), each
        self._wanted = least
        self._long_since: float | None = None
        self._calm_since: float | None = None
        self._changed = float("-inf")

    def wanted(self, waiting: int, now: float) -> int:
        """How many adapters there should be.

        Args:
            waiting: requests without an answer.
            now: seconds, of any clock that only goes on.

        Example:
            >>> scale = Scale(1, 2, each=10)
            >>> [scale.wanted(waiting, now) for waiting, now in ((50, 0), (50, 2), (0, 20), (0, 90))]
            [1, 2, 2, 1]
        """
        long, calm = waiting > self._each * max(1, self._wanted), waiting == 0
        self._long_since = (self._long_since if self._long_since is not None else now) if long else None
        self._calm_since = (self._calm_since if self._calm_since is not None else now) if calm else None
        if now - self._changed < SETTLE_S:
            return self._wanted
        if self._long_since is not None and now - self._long_since >= GROW_AFTER_S and self._wanted < self._most:
            self._set(self._wanted + 1, now)
        elif self._calm_since is not None and now - self._calm_since >= SHRINK_AFTER_S and self._wanted > self._least:
            self._set(self._wanted - 1, now)
        return self._wanted

    def _set(self, wanted: int, now: float) -> None:
        self._wanted, self._changed = wanted, now
        self._long_since = self._calm_since = None
