"""The settings of one job's replay buffer, and the limiter that they stand for.

The limiter, applied before compute is spent (a claim is refused, never a finished unit):

    sync    a unit is given out when  next_unit < min(version + 1, rounds) · U
    async   a unit is given out when  next_unit − first < ⌊sampled / s + returned⌋ + ahead · U
                                 and  outstanding < ahead · U · ⌈s⌉
                                 and  s · outstanding − used < (rounds − version₀) · U − sampled
            or, so that no setting starves the learner, when  outstanding < need(U)

U = units per round, s = samples per insert, outstanding = claimed + stored units, used = uses of the stored units,
returned = the unused share (1 − uses/s) of the units that were dropped as stale, first = version₀ · U with version₀
the version of the last reset. A sample of n units waits until need(n) = max(n, min_units, ⌈n/s⌉) complete units are
stored. The unit with number u leaves after cap(u) uses:

    uniform, fifo, consuming, without_replacement   max(1, ⌊(u+1)·s⌋ − ⌊u·s⌋), which is s on average for s ≥ 1
    lifo, prioritized, fresh                        never by its uses
    any, with max_times_sampled                     max_times_sampled

Where uses alone do not make units leave at the rate of the samples (s < 1, and the last two lines), every sample also
discards the oldest units, so that ⌊sampled/s⌋ units have left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from warploom.errors import InvalidInput
from warploom.samplers import EVEN, UNIFORM, Sampler

WhenFull = Literal["wait", "drop_oldest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """The settings of one job's buffer; a plan that would deadlock is refused when it is made.

    Args:
        mode: "sync" (rounds, reproducible) or "async" (own pace).
        units_per_round: units in one round; also the size of the learner's sample.
        rounds: rounds of the whole job.
        max_bytes: hard budget of the stored chunks, in bytes.
        samples_per_insert: async: how often a unit is used, on average.
        min_units: async: complete units before the first sample.
        ahead: async: rounds of units that rollouts may be ahead.
        max_staleness: async: versions that a stored unit may lag behind.
        lease_s: seconds after which a claim that was not renewed is handed out again.
        max_rejections: so many times may a unit turn out unreadable before the job fails.
        sampler: async: which units a sample gets.
        max_times_sampled: async: most uses of a unit; None for what the table above says.
        max_units: hard budget of stored units, complete or not; None for bytes alone.
        when_full: async: "wait" (writers wait) or "drop_oldest" (the oldest complete units go).

    Raises:
        InvalidInput: a value out of range, or a plan in which both sides would wait for ever.
    """

    mode: Literal["sync", "async"]
    units_per_round: int
    rounds: int
    max_bytes: int
    samples_per_insert: float = 1.0
    min_units: int = 1
    ahead: int = 2
    max_staleness: int = 8
    lease_s: float = 30.0
    max_rejections: int = 3
    sampler: Sampler = UNIFORM
    max_times_sampled: int | None = None
    max_units: int | None = None
    when_full: WhenFull = "wait"

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise InvalidInput(
                    f"replay: {name} is {value}", field=f"/replay/{name}", rule=f"at least {least}", value=value
                )
        if self.mode not in ("sync", "async"):
            raise InvalidInput(
                f"replay: mode is {self.mode!r}", field="/replay/mode", rule="sync or async", value=self.mode
            )
        if not 0 < self.samples_per_insert < math.inf:
            raise InvalidInput(
                f"replay: samples_per_insert is {self.samples_per_insert}",
                field="/replay/samples_per_insert",
                rule="above 0 and finite",
                value=self.samples_per_insert,
            )
        if self.mode == "async":
            self._check_window()
            self._check_sampler()
            self._check_items(self.need(self.units_per_round))
            return
        self._check_items(self.units_per_round)
        if self.when_full != "wait":
            raise InvalidInput(
                "a sync round needs every unit of its round, so that none may be dropped",
                field="/replay/when_full",
                rule="wait in sync mode",
                value=self.when_full,
            )
        if self.sampler.name != "uniform" or self.max_times_sampled is not None:
            raise InvalidInput(
                "a sync round uses every unit of its round once: samplers and max_times_sampled are for async mode",
                field="/replay/sampler",
                rule="uniform in sync mode",
                value=self.sampler.name,
            )

    def _check_window(self) -> None:
        lead = self.ahead * self.units_per_round
        if self.min_units > lead:
            raise InvalidInput(
                f"the learner would wait for {self.min_units} units while rollouts stop at {lead} "
                f"(ahead {self.ahead} x {self.units_per_round} units per round): both would wait for ever",
                field="/replay/min_units",
                rule=f"at most ahead * units_per_round = {lead}",
                value=self.min_units,
            )
        if self.need(self.units_per_round) > lead:
            raise InvalidInput(
                f"with {self.samples_per_insert} samples per insert a sample of {self.units_per_round} units needs "
                f"{self.need(self.units_per_round)} stored units while rollouts stop at {lead}: both would wait for "
                "ever",
                field="/replay/ahead",
                rule=f"at least {-(-self.need(self.units_per_round) // self.units_per_round)}",
                value=self.ahead,
            )

    def _check_items(self, needed: int) -> None:
        if self.max_units is not None and self.max_units < needed:
            raise InvalidInput(
                f"the learner waits for {needed} units while the buffer may hold {self.max_units}: both would wait for "
                "ever",
                field="/replay/max_trajectories",
                rule=f"at least {needed} units",
                value=self.max_units,
            )

    def _check_sampler(self) -> None:
        most = 1 if self.sampler.name == "consuming" else self.max_times_sampled
        if most is not None and most < self.samples_per_insert:
            raise InvalidInput(
                f"{self.samples_per_insert:g} samples per insert of units that leave after {most} uses: the learner "
                "would use up what rollouts may insert, and both would wait for ever",
                field="/replay/max_times_sampled",
                rule=f"at least samples_per_insert = {self.samples_per_insert:g}",
                value=most,
            )

    def need(self, count: int) -> int:
        """Complete units that must be stored before a sample of `count` (async)."""
        return max(count, self.min_units, math.ceil(count / self.samples_per_insert - 1e-9))

    def uses(self, unit: int) -> int:
        """How often this unit is used before it leaves (async)."""
        rate = self.samples_per_insert
        return max(1, math.floor((unit + 1) * rate + 1e-9) - math.floor(unit * rate + 1e-9))

    def cap(self, unit: int) -> int:
        """Uses after which this unit leaves; 0 for never (async)."""
        if self.max_times_sampled is not None:
            return self.max_times_sampled
        return self.uses(unit) if self.sampler.name in EVEN else 0

    @property
    def ages(self) -> bool:
        """Whether samples discard the oldest units (async)."""
        return self.samples_per_insert < 1 or self.max_times_sampled is not None or self.sampler.name not in EVEN

    @property
    def window(self) -> int:
        """Most units that are claimed or stored at one time."""
        if self.mode == "sync":
            return self.units_per_round
        most = self.ahead * self.units_per_round * math.ceil(self.samples_per_insert)
        bounded = self.max_units is not None and self.when_full == "wait"
        return min(most, self.max_units or most) if bounded else most

    def check_unit_bytes(self, bytes_per_unit: int) -> None:
        """Refuse units that are so large that the buffer could not hold what a round (sync) or window (async) needs.

        Args:
            bytes_per_unit: size of all chunks of one unit, in bytes.

        Raises:
            InvalidInput: with the numbers, and the budget that would do.
        """
        drops = self.when_full == "drop_oldest"
        units = self.need(self.units_per_round) if drops else self.window
        needed = units * bytes_per_unit
        if needed > self.max_bytes:
            what = "a full round" if self.mode == "sync" else "a sample" if drops else "the window"
            raise InvalidInput(
                f"{what} is {units} units of {bytes_per_unit} bytes = {needed} bytes, and the replay may hold "
                f"{self.max_bytes}: rollouts would wait for ever; raise replay.max_bytes, record fewer points, or "
                "use smaller rounds",
                field="/replay/max_bytes",
                rule=f"at least {needed}",
                value=self.max_bytes,
            )


_LEAST = {
    "units_per_round": 1,
    "rounds": 0,
    "max_bytes": 1,
    "min_units": 1,
    "ahead": 1,
    "max_staleness": 0,
    "lease_s": 0.001,
    "max_rejections": 1,
}
