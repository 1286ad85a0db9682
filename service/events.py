"""The history of jobs and sweeps: one capped stream each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from service import keys
from service.connection import Connections
from service.lifecycle import Clock, clock_arg, fenced, missing
from service.scripts import Script
from service.tenancy import DEFAULT_TENANT, Caller
from warploom.errors import InvalidInput
from warploom.records import Event

LIST_MOST = 10_000
_append = Script("append_event", "_life.lua")


class EventLog:
    """Events of jobs and sweeps, kept as capped Redis streams on the state server (about the last 10 000).

    Every change of state writes one of kind "state" by itself (data: state, generation, and on an end model or
    error), every change of phase one of kind "phase" (data: phase).

    Args:
        connections: both Redis roles.
        clock: seconds since the epoch, for tests; default: the state server's own clock.
        caller: whose histories may be read; None for all.
    """

    def __init__(self, connections: Connections, *, clock: Clock | None = None, caller: Caller | None = None) -> None:
        self._state = connections.state
        self._clock = clock
        self._caller = caller

    def append(self, owner_id: str, kind: str, data: Mapping[str, Any], *, generation: int) -> Event:
        """Add one event; at least once when the connection breaks in between.

        Args:
            owner_id: id of the job or sweep.
            kind: what happened (`round`, `evaluation`, `checkpoint`, `log`…).
            data: JSON values.
            generation: from the claim.

        Raises:
            Fenced: the generation is not current.
            NotFound: no such job or sweep.
            InvalidInput: a number that JSON has no word for (NaN, infinity).
        """
        try:
            text = json.dumps(dict(data), allow_nan=False)
        except ValueError as error:
            raise InvalidInput(f"event data: {error}", field="data", rule="finite JSON values") from None
        where = [keys.record(owner_id), stream_key(owner_id)]
        word, *detail = _append(self._state, where, [clock_arg(self._clock), generation, kind, text])
        if word == b"missing":
            raise missing("job or sweep", owner_id)
        if word == b"fenced":
            raise fenced(owner_id, generation, detail[0].decode())
        return Event(id=detail[0].decode(), at=int(detail[1]) / 1000, kind=kind, data=json.loads(text))

    def newest(self, owner_id: str) -> str | None:
        """The id of the last event; None when there is none."""
        entries = self._state.execute_command("XREVRANGE", stream_key(owner_id), "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else None

    def list(self, owner_id: str, after: str | None = None, limit: int = 100) -> list[Event]:
        """Events in order, after the event with id `after` (None: from the start).

        Raises:
            NotFound: no such job or sweep.
            InvalidInput: `after` is no event id, or limit is not 1 to 10 000.
        """
        if not 1 <= limit <= LIST_MOST:
            raise InvalidInput("limit is out of range", field="limit", rule=f"1 to {LIST_MOST}", value=limit)
        if self._caller is not None:
            self._check_owner(owner_id, self._caller)
        low = "-" if after is None else f"({check_event_id(after)}"
        entries = self._state.execute_command("XRANGE", stream_key(owner_id), low, "+", "COUNT", limit)
        if not entries and not self._state.execute_command("EXISTS", keys.record(owner_id)):
            raise missing("job or sweep", owner_id)
        return [parse_entry(entry_id, fields) for entry_id, fields in entries]

    def _check_owner(self, owner_id: str, caller: Caller) -> None:
        there, tenant = self._state.execute_command("HMGET", keys.record(owner_id), "id", "tenant")
        if there is None or (tenant or DEFAULT_TENANT.encode()).decode() != caller.tenant:
            raise missing("job or sweep", owner_id)


def check_event_id(text: str) -> str:
    """The text, if it can be an event id.

    Raises:
        InvalidInput: it cannot.
    """
    numbers = [int(part) for part in text.split("-")] if re.fullmatch(r"\d{1,20}-\d{1,20}", text) else []
    if not numbers or max(numbers) >= 2**64:
        raise InvalidInput(
            f"no event id: {text!r}", field="after", rule="an event's id, like 1700000000000-0", value=text
        )
    return text


def stream_key(owner_id: str) -> str:
    """The stream that holds the events of a job or sweep (on the state server)."""
    return keys.events(owner_id)


def parse_entry(entry_id: bytes | str, fields: Mapping[bytes, bytes]) -> Event:
    """A raw stream entry as an event."""
    return Event(
        id=entry_id.decode() if isinstance(entry_id, bytes) else entry_id,
        at=int(fields[b"at"]) / 1000,
        kind=fields[b"kind"].decode(),
        data=json.loads(fields[b"data"]),
    )
