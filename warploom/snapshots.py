"""The buffer of an async job as bytes: complete units, the limiter's counters, and what was being done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from warploom import chunks
from warploom.errors import WireError
from warploom.replay import ReplayPlan
from warploom.samplers import Stored


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the limiter stands (`warploom.replay_plan`): its counters, and the current version and epoch."""

    version: int
    base: int
    first: int
    next: int
    sampled: int
    inserted: int
    left: int
    returned: float
    epoch: int

    def moved(self, version: int, plan: ReplayPlan) -> Cursor:
        """The cursor for a buffer that goes on at a later version: the rounds between were sampled too."""
        between = max(0, version - self.version) * plan.units_per_round
        left = self.left + int(between / plan.samples_per_insert)
        return replace(self, version=version, sampled=self.sampled + between, left=left)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A buffer's content.

    Args:
        cursor: of the limiter.
        units: complete units with their chunks.
        claimed: units that were claimed or begun.
    """

    cursor: Cursor
    units: Sequence[tuple[Stored, Sequence[bytes]]]
    claimed: Sequence[int]


def pack(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes, with a checksum."""
    fields = Cursor.__dataclass_fields__
    header: dict[str, Any] = {
        "snapshot": 1,
        "cursor": {name: getattr(snapshot.cursor, name) for name in fields},
        "units": [[s.unit, s.version, s.parts, s.uses, s.priority, s.epoch] for s, _ in snapshot.units],
        "claimed": list(snapshot.claimed),
    }
    arrays = {
        f"{stored.unit}:{part}": np.frombuffer(blob, np.uint8)
        for stored, blobs in snapshot.units
        for part, blob in enumerate(blobs)
    }
    return chunks.encode(header, arrays)


def unpack(blob: bytes) -> Snapshot:
    """The snapshot in a blob of `pack`.

    Raises:
        WireError: damaged, or something else.
    """
    header, arrays = chunks.decode(blob)
    try:
        units = [Stored(*row) for row in header["units"]]
        found = [(one, [arrays[f"{one.unit}:{part}"].tobytes() for part in range(one.parts)]) for one in units]
        return Snapshot(Cursor(**header["cursor"]), found, header["claimed"])
    except (KeyError, TypeError) as error:
        raise WireError(f"not a snapshot of a replay: {error!r}") from None


def pack_shares(shares: Sequence[bytes]) -> bytes:
    """The snapshots of all shares of a buffer (`warploom.replay_shares`) as one, with a checksum."""
    arrays = {str(i): np.frombuffer(share, np.uint8) for i, share in enumerate(shares)}
    return chunks.encode({"snapshot": 1, "shares": len(shares)}, arrays)


def unpack_shares(blob: bytes, count: int) -> list[bytes]:
    """The snapshots in a blob of `pack_shares`.

    Raises:
        WireError: damaged, something else, or not of so many shares.
    """
    header, arrays = chunks.decode(blob)
    if header.get("shares") != count or len(arrays) != count:
        raise WireError(f"not a snapshot of a replay on {count} servers")
    return [arrays[str(i)].tobytes() for i in range(count)]
