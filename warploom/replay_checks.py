"""What every replay buffer refuses, and in which words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from warploom.errors import Conflict, InvalidInput
from warploom.replay import Chunk
from warploom.replay_plan import ReplayPlan


def published_already(version: int) -> Conflict:
    """The error for a snapshot that comes too late."""
    return Conflict("a snapshot is restored between reset and publish", field="version", rule="-1", value=version)


def check_chunk(chunk: Chunk, plan: ReplayPlan) -> None:
    """Refuse a chunk that contradicts itself or could never be stored.

    Raises:
        InvalidInput: with the member at fault.
    """
    if not 0 <= chunk.part < chunk.parts:
        raise InvalidInput(
            f"part {chunk.part} of {chunk.parts}", field="part", rule=f"0 to {chunk.parts - 1}", value=chunk.part
        )
    if min(chunk.unit, chunk.version) < 0:
        raise InvalidInput("unit and version count from 0", field="unit", rule="at least 0", value=chunk.unit)
    if not 0 < chunk.priority < math.inf:
        raise InvalidInput(
            f"priority {chunk.priority}", field="priority", rule="above 0 and finite", value=chunk.priority
        )
    if len(chunk.blob) > plan.max_bytes:
        raise InvalidInput(
            f"a chunk of {len(chunk.blob)} bytes never fits into a replay of {plan.max_bytes}",
            field="blob",
            rule=f"at most {plan.max_bytes} bytes",
            value=len(chunk.blob),
        )


def check_unit(chunks: Sequence[Chunk], plan: ReplayPlan) -> None:
    """Refuse chunks that are not of one unit, or one that could never be stored.

    Raises:
        InvalidInput: with the member at fault.
    """
    if len({(chunk.unit, chunk.parts, chunk.version) for chunk in chunks}) > 1:
        raise InvalidInput("chunks of several units or versions", field="chunks", rule="of one unit and version")
    for chunk in chunks:
        check_chunk(chunk, plan)


def not_current(version: int, current: int) -> Conflict:
    """The error for a call that is about another version than the current one."""
    return Conflict(
        f"version {version} is not the current one ({current})", field="version", rule=f"{current}", value=version
    )


def other_parts(chunk: Chunk, parts: int) -> InvalidInput:
    """The error for a chunk that disagrees with its unit's first one."""
    return InvalidInput(
        f"unit {chunk.unit} has {parts} parts, not {chunk.parts}", field="parts", rule=f"{parts}", value=chunk.parts
    )
