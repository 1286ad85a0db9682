"""How one job's buffer is divided among several servers.

Each of S = min(servers, U) shares is a buffer by itself, with its own claims, limiter and budgets. Of a round's U units
share i has those at the positions p ≡ i (mod S), which are U_i = ⌈(U − i)/S⌉, so that ΣU_i = U. Unit v·U + p of the job
is unit v·U_i + ⌊p/S⌋ of its share.

A share has the rate s of the whole, and U_i/U of its band, of its bytes and of its minimum of stored units. It can
always store need(U_i) units, and Σ need(U_i) ≥ need(U): what the learner waits for comes, whatever share it comes from.
"""

from __future__ import annotations

from dataclasses import replace

from warploom.errors import InvalidInput
from warploom.replay_plan import ReplayPlan


class Shares:
    """The shares of a buffer, and which unit belongs to which.

    Args:
        plan: of the whole.
        servers: how many there are.

    Attributes:
        plans: of each share.

    Example:
        >>> shares = Shares(ReplayPlan(mode="sync", units_per_round=3, rounds=2, max_bytes=300), servers=2)
        >>> [plan.max_bytes for plan in shares.plans]
        [200, 100]
        >>> [shares.place(unit) for unit in range(6)]
        [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]
        >>> shares.unit(1, 1)
        4
    """

    def __init__(self, plan: ReplayPlan, servers: int) -> None:
        self._plan = plan
        self._count = min(servers, plan.units_per_round)
        sizes = [-(-(plan.units_per_round - i) // self._count) for i in range(self._count)]
        parts = [self._part(size) for size in sizes]
        self.plans = parts if plan.max_units is None else self._with_items(parts, plan.max_units)

    def _part(self, size: int) -> ReplayPlan:
        whole = self._plan
        return replace(
            whole,
            units_per_round=size,
            max_bytes=max(1, whole.max_bytes * size // whole.units_per_round),
            min_units=-(-whole.min_units * size // whole.units_per_round),
            max_units=None,
        )

    def _with_items(self, parts: list[ReplayPlan], most: int) -> list[ReplayPlan]:
        """First what each share needs, then the rest evenly; `check` refuses a budget that is smaller than that."""
        rest = max(0, most - sum(map(_needed, parts)))
        more = [(rest + i) // self._count for i in reversed(range(self._count))]
        return [replace(part, max_units=_needed(part) + n) for part, n in zip(parts, more, strict=True)]

    def place(self, unit: int) -> tuple[int, int]:
        """The share of a unit, and the unit's number there."""
        version, position = divmod(unit, self._plan.units_per_round)
        index, share = divmod(position, self._count)
        return share, version * self.plans[share].units_per_round + index

    def unit(self, share: int, number: int) -> int:
        """The job's number of a share's unit."""
        version, index = divmod(number, self.plans[share].units_per_round)
        return version * self._plan.units_per_round + index * self._count + share

    def check(self, bytes_per_unit: int) -> None:
        """Refuse budgets of which some share could not hold what it needs; see `ReplayPlan.check_unit_bytes`.

        Args:
            bytes_per_unit: size of all chunks of one unit, in bytes.

        Raises:
            InvalidInput: with the numbers.
        """
        needed, most = sum(map(_needed, self.plans)), self._plan.max_units
        if most is not None and most < needed:
            raise InvalidInput(
                f"the learner waits for {needed} units on {self._count} replay servers while the buffer may hold "
                f"{most}: both would wait for ever",
                field="/replay/max_trajectories",
                rule=f"at least {needed} units",
                value=most,
            )
        for plan in self.plans:
            self._check_bytes(plan, bytes_per_unit)

    def _check_bytes(self, part: ReplayPlan, bytes_per_unit: int) -> None:
        try:
            part.check_unit_bytes(bytes_per_unit)
        except InvalidInput as error:
            if self._count == 1:
                raise
            raise InvalidInput(
                f"on one of {self._count} replay servers, which hold {part.units_per_round} of a round's "
                f"{self._plan.units_per_round} units and as much of replay.max_bytes: {error.message}",
                field=error.field,
                rule=f"{error.rule} of {part.max_bytes} (of {self._plan.max_bytes} in all)",
                value=self._plan.max_bytes,
            ) from None


def _needed(plan: ReplayPlan) -> int:
    return plan.units_per_round if plan.mode == "sync" else plan.need(plan.units_per_round)
