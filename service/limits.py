"""What one API key may ask for.

| name                | kind   | counts                                                      |
|---------------------|--------|-------------------------------------------------------------|
| requests_per_minute | bucket | requests under /v1                                          |
| rows_per_minute     | bucket | rows of support sets and queries                            |
| bytes_per_minute    | bucket | bytes of bodies                                             |
| jobs, sweeps        | count  | queued, running and paused ones                             |
| body_bytes          | size   | bytes of one body                                           |
| support_rows        | size   | rows of one support set, or of its queries                  |
| sweep_trials        | size   | trials of one sweep                                         |

A bucket holds its limit when it is full and is filled again evenly within a minute; what does not fit is refused, with
the time after which it would. Buckets live on the replay server: after a restart they are full. While that server does
not answer, nothing is counted, because a quota is worth less than the requests that it would cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from service import keys
from service.connection import Connections, first
from service.lifecycle import Clock, clock_arg
from service.scripts import Arg, Script
from service.settings import Settings
from service.tenancy import Caller
from service.trips import Trips
from warploom.errors import InvalidInput, RateLimited, TooLarge, Unavailable
from warploom.records import LimitUse

BUCKETS = ("requests_per_minute", "rows_per_minute", "bytes_per_minute")
COUNTS = ("jobs", "sweeps")
SIZES = ("body_bytes", "support_rows", "sweep_trials")
NAMES = BUCKETS + COUNTS + SIZES
REQUESTS, ROWS, BYTES = BUCKETS
WINDOW_S = 60

log = structlog.get_logger()
_take = Script("take")
_active = Script("active", "_active.lua")


def defaults(settings: Settings) -> dict[str, int]:
    """The service's limits by name."""
    named = {name: getattr(settings, f"limit_{name}") for name in (*BUCKETS, *COUNTS, "sweep_trials")}
    return named | {"body_bytes": settings.max_body_bytes, "support_rows": settings.max_support_rows}


def resolved(settings: Settings, caller: Caller) -> Caller:
    """The caller with all limits: its own, else the service's. No key may send more at once than the service reads."""
    ours = defaults(settings)
    own = {name: caller.limits.get(name, ours[name]) for name in NAMES}
    return replace(caller, limits=own | {name: min(own[name], ours[name]) for name in ("body_bytes", "support_rows")})


def check_own(limits: Mapping[str, int]) -> None:
    """Refuse limits of a key that have no such name or are below 0.

    Raises:
        InvalidInput: with the name of the first that is wrong.
    """
    for name, value in limits.items():
        if name not in NAMES:
            rule = f"one of {', '.join(NAMES)}"
            raise InvalidInput(f"/limits: unknown limit {name[:50]!r}", field="/limits", rule=rule, value=name[:50])
        if not 0 <= value <= 2**53:
            field, rule = f"/limits/{name}", "from 0 to 2**53"
            raise InvalidInput(f"{field}: must be {rule}", field=field, rule=rule, value=value)


class Limiter:
    """The buckets of one key.

    Args:
        connections: both Redis roles.
        caller: whose they are, with all limits (see `resolved`); None is not limited.
        clock: seconds since the epoch, for tests; default: the replay server's own clock.
    """

    def __init__(self, connections: Connections, caller: Caller | None = None, *, clock: Clock | None = None) -> None:
        self._state, self._shards = connections.state, connections.shards
        self._caller = caller
        self._clock = clock

    @property
    def key(self) -> str | None:
        """The id of the key; None without a caller."""
        return None if self._caller is None else self._caller.key

    def most(self, name: str) -> int:
        """The caller's limit of this name."""
        return self._caller.limits[name] if self._caller else 2**53

    def take(self, **amounts: int) -> None:
        """Take from buckets by name, from all or from none.

        Raises:
            RateLimited: one has not enough, with the time after which it will.
            TooLarge: more than one ever holds.
        """
        self._check(amounts)
        if self._caller is not None:
            try:
                self._judge(amounts, first(self._shards, lambda shard: _take(shard, *self._asked(amounts))))
            except Unavailable as error:
                log.warning("limits are not counted", error=error.message)

    async def taken(self, replay: Trips, **amounts: int) -> None:
        """As `take`, on an event loop."""
        self._check(amounts)
        if self._caller is not None:
            try:
                self._judge(amounts, await replay.script(_take, *self._asked(amounts)))
            except Unavailable as error:
                log.warning("limits are not counted", error=error.message)

    def _check(self, amounts: Mapping[str, int]) -> None:
        for name, amount in amounts.items():
            if 0 < self.most(name) < amount:
                rule = f"at most {self.most(name)} in a minute"
                raise TooLarge(f"{_say(name)}: {rule}, got {amount}", field=f"/limits/{name}", rule=rule, value=amount)

    def _judge(self, amounts: Mapping[str, int], reply: Sequence[Any]) -> None:
        short, wait_ms, *_ = reply
        if short:
            name = BUCKETS[int(short) - 1]
            rule = f"at most {self.most(name)} in a minute"
            raise RateLimited(
                f"too many {_say(name)} with this key: {rule}",
                field=f"/limits/{name}",
                rule=rule,
                value=amounts.get(name),
                retry_after_s=int(wait_ms) / 1000,
            )

    def _asked(self, amounts: Mapping[str, int]) -> tuple[list[str], list[Arg]]:
        what: list[Arg] = [clock_arg(self._clock), WINDOW_S * 1000]
        for name in BUCKETS:
            what += [name, self.most(name), amounts.get(name, 0)]
        return [keys.limits(self.key or "")], what

    def uses(self) -> dict[str, LimitUse]:
        """How much of each limit is used, and when it will not be any more."""
        if self._caller is None:
            return {}
        most = self._caller.limits
        _, _, *levels = first(self._shards, lambda shard: _take(shard, *self._asked({})))
        found = {}
        for name, level in zip(BUCKETS, map(float, levels), strict=True):
            used = max(0, round(most[name] - level))
            reset_s = used / most[name] * WINDOW_S if most[name] else float(WINDOW_S)
            found[name] = LimitUse(limit=most[name], used=used, reset_s=round(reset_s, 3))
        for name in COUNTS:
            used = int(_active(self._state, [keys.active(name[:-1], self._caller.key)], ["wl:record:"]))
            found[name] = LimitUse(limit=most[name], used=used)
        return found | {name: LimitUse(limit=most[name]) for name in SIZES}


def _say(name: str) -> str:
    return name.removesuffix("_per_minute").replace("_", " ")
