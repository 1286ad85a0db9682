"""The life of what is queued, leased and ended: one core for jobs and sweeps.

A move is one script: it checks the generation, changes the state, writes a transition and an event. A claim raises
the fence on the replay server *before* it takes the record. If the claimer dies in between, the old generation is
fenced although its lease may still be renewed: it stops, and the record is claimed anew. The other order would leave
a time in which a replaced worker's trajectories are accepted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from service import ids, keys
from service.connection import Connections, every
from service.listing import Wanted, page, pairs
from service.metadata import change_metadata
from service.moves import MOVES, STATES, moves_arg
from service.scripts import Script
from service.tenancy import DEFAULT_TENANT, Caller
from warploom.errors import Conflict, Fenced, InvalidInput, NotFound, RateLimited
from warploom.records import FINAL_STATES, Failure, Transition

Clock = Callable[[], float]
Kind = Literal["job", "sweep"]
Fields = dict[str, str]

CANDIDATES = 16
FULL_RETRY_S = 30.0  # nobody knows when a job will end

_create = Script("create", "_life.lua", "_active.lua")
_claim = Script("claim", "_life.lua")
_move = Script("move", "_life.lua")
_heartbeat = Script("heartbeat", "_life.lua")
_annotate = Script("annotate")
_fence = Script("fence")


class Ledger:
    """Records of one kind, their queue and their leases.

    Args:
        connections: both Redis roles.
        kind: job or sweep; also the prefix of ids.
        clock: seconds since the epoch, for tests; default: the state server's own clock.
        caller: whose records these are; None for all of them.
    """

    def __init__(
        self, connections: Connections, kind: Kind, *, clock: Clock | None = None, caller: Caller | None = None
    ) -> None:
        self._state = connections.state
        self._shards = connections.shards
        self._kind = kind
        self._clock = clock
        self._caller = caller
        self._tenant = caller.tenant if caller else DEFAULT_TENANT  # of what is made and listed

    def create(self, name: str | None, spec: Mapping[str, Any], once: str | None = None, **more: Any) -> Fields:
        """A new queued record; `name` defaults to its id.

        Args:
            name: of the record.
            spec: what is asked for.
            more: further fields of the record, as JSON values; those that are None or empty are left out.
            once: the caller's own key; with one that was used for the same request in the last 24 hours nothing is
                made, and the record is the one made then.

        Raises:
            InvalidInput: the key was used for another request.
            RateLimited: the caller has too many that have not ended.
        """
        owner_id = ids.new_id(self._kind)
        everything, api_key = keys.everything(self._kind, self._tenant), self._caller.key if self._caller else ""
        most = self._caller.limits.get(f"{self._kind}s", "") if self._caller else ""
        where = [keys.record(owner_id), keys.events(owner_id), everything, *self._places()]
        where.append(keys.active(self._kind, api_key))
        what: list[str | int] = [clock_arg(self._clock), owner_id, name or owner_id, json.dumps(spec)]
        # What was sent, where that is known: the complete spec may say more than the caller did.
        asked = json.dumps(more.get("sent") or [name, spec, more], sort_keys=True)
        what += [self._tenant, api_key, most, keys.RECORD]
        what += [hashlib.sha256(asked.encode()).hexdigest(), keys.ONCE_TTL_S]
        for field, value in more.items():
            what += [field, json.dumps(value)] if value else []
        if once is not None:
            where.append(keys.once(self._kind, api_key, once))
        word, *detail = _create(self._state, where, what)
        if word == b"full":
            raise self._too_many(int(detail[0]))
        if word == b"other":
            raise InvalidInput(
                f"the idempotency key {once!r} was used for another {self._kind}",
                field="/headers/idempotency-key",
                rule="one request per key in 24 hours",
                value=once,
            )
        return self.read(detail[0].decode())

    def _too_many(self, count: int) -> RateLimited:
        most = self._caller.limits[f"{self._kind}s"] if self._caller else 0
        rule = f"at most {most} that have not ended"
        return RateLimited(
            f"too many {self._kind}s with this key: {rule}",
            field=f"/limits/{self._kind}s",
            rule=rule,
            value=count,
            retry_after_s=FULL_RETRY_S,
        )

    def read(self, owner_id: str) -> Fields:
        """The record's fields.

        Raises:
            NotFound: no such record.
        """
        if not ids.is_id(self._kind, owner_id):
            self._missing(owner_id)
        fields = as_fields(self._state.execute_command("HGETALL", keys.record(owner_id)))
        if not fields or (self._caller and tenant_of(fields) != self._tenant):
            self._missing(owner_id)
        return fields

    def page(self, wanted: Wanted) -> tuple[list[Fields], bool]:
        """The records that are wanted, and whether there are more.

        Raises:
            InvalidInput: an unknown state, or `after` is no id.
        """
        if wanted.state is not None and wanted.state not in STATES:
            rule = f"one of {', '.join(sorted(STATES))}"
            raise InvalidInput(f"unknown state {wanted.state!r}; {rule}", field="state", rule=rule, value=wanted.state)
        if wanted.after is not None and not ids.is_id(self._kind, wanted.after):
            rule = f"a {self._kind} id"
            raise InvalidInput(f"no {rule}: {wanted.after!r}", field="after", rule=rule, value=wanted.after)

        def fits(fields: Fields) -> bool:
            created_at, metadata = int(fields["created_at"]) / 1000, pairs(fields.get("metadata"))
            return wanted.fits(created_at=created_at, metadata=metadata, state=fields["state"])

        return page(self._state, keys.everything(self._kind, self._tenant), wanted, self._read_many, fits)

    def _read_many(self, owner_ids: Sequence[str]) -> list[Fields]:
        with self._state.translated(), self._state.pipeline(transaction=False) as pipe:
            for owner_id in owner_ids:
                pipe.hgetall(keys.record(owner_id))
            return [as_fields(raw) for raw in pipe.execute()]

    def note(self, owner_id: str, changes: Mapping[str, str | None]) -> Fields:
        """Change metadata: pairs to set, and names to remove (None).

        Raises:
            NotFound: no such record.
            InvalidInput: there would be too many pairs.
        """
        self.read(owner_id)  # so that another tenant's record is missing
        if not change_metadata(self._state, keys.record(owner_id), changes):
            self._missing(owner_id)
        return self.read(owner_id)

    def claim(self, owner: str, lease_s: float) -> tuple[Fields, int] | None:
        """The oldest record that nobody holds, as its next generation; None when there is none."""
        token = secrets.token_hex(8)
        moves = moves_arg("claim")
        for owner_id in self._candidates():
            seen = int(self.read(owner_id)["generation"])
            self._raise_fence(owner_id, seen + 1)
            where = [keys.record(owner_id), keys.events(owner_id), *self._places()]
            what = (clock_arg(self._clock), owner_id, seen, token, owner, round(lease_s * 1000), moves)
            generation = int(_claim(self._state, where, what))
            if generation:
                return self.read(owner_id), generation
        return None

    def _candidates(self) -> list[str]:
        now = round(self._clock() * 1000) if self._clock else self._state.now_ms()
        waiting, held = self._places()
        free = self._state.execute_command("ZRANGE", waiting, 0, CANDIDATES - 1)
        free += self._state.execute_command("ZRANGEBYSCORE", held, "-inf", now, "LIMIT", 0, CANDIDATES)
        return sorted(owner_id.decode() for owner_id in free)

    def _raise_fence(self, owner_id: str, generation: int) -> None:
        if self._kind == "job":
            # One that is away is fenced when the learner opens its buffer there.
            every(self._shards, lambda shard: _fence(shard, [keys.fence(owner_id)], [generation, keys.REPLAY_TTL_S]))

    def heartbeat(
        self, owner_id: str, generation: int, lease_s: float, *, phase: str | None = None, progress: str | None = None
    ) -> str:
        """Renew the lease; the state, which may say that a pause or a cancel was asked for.

        Raises:
            Fenced: the generation is not current, or nobody holds the record.
            NotFound: no such record.
        """
        where = [keys.record(owner_id), keys.events(owner_id), keys.leases(self._kind)]
        lease_ms = round(lease_s * 1000)
        what = (clock_arg(self._clock), owner_id, generation, lease_ms, phase or "", progress or "")
        return self._checked(owner_id, generation, _heartbeat(self._state, where, what))

    def finish(
        self, owner_id: str, generation: int, state: str, *, error: Failure | None, **outcome: str | None
    ) -> Fields:
        """End the record as `state`, with what came out of it.

        Raises:
            InvalidInput: `state` is not final.
            Fenced, Conflict, NotFound: as for every move.
        """
        if state not in FINAL_STATES:
            rule = f"one of {', '.join(sorted(FINAL_STATES))}"
            raise InvalidInput(f"{state!r} is no end; {rule}", field="state", rule=rule, value=state)
        told: dict[str, Any] = {name: value for name, value in outcome.items() if value is not None}
        stored = dict(told)
        if error is not None:
            told["error"] = error.model_dump(mode="json")
            stored["error"] = error.model_dump_json()
        return self.move(state, owner_id, generation, told=told, stored=stored)

    def move(
        self,
        action: str,
        owner_id: str,
        generation: int | None = None,
        *,
        told: Mapping[str, Any] | None = None,
        stored: Mapping[str, str] | None = None,
        lost: bool = False,
    ) -> Fields:
        """One move of `service.moves.MOVES`.

        Args:
            action: row of the table.
            owner_id: the record.
            generation: who moves; None when anyone may.
            told: further members of the event.
            stored: fields to set.
            lost: whether a run of it was lost.

        Raises:
            Fenced: the generation is not current.
            Conflict: the state does not allow it.
            NotFound: no such record.
        """
        if self._caller or not ids.is_id(self._kind, owner_id):
            self.read(owner_id)  # a record never changes its tenant
        where = [keys.record(owner_id), keys.events(owner_id), *self._places()]
        what: list[str | int] = [clock_arg(self._clock), owner_id, "" if generation is None else generation]
        what += [moves_arg(action), int(action == "release"), int(lost), json.dumps(told) if told else ""]
        for name, value in (stored or {}).items():
            what += [name, value]
        self._checked(owner_id, generation, _move(self._state, where, what), action)
        return self.read(owner_id)

    def _checked(self, owner_id: str, generation: int | None, reply: list[bytes], action: str = "") -> str:
        word = reply[0].decode()
        if word == "missing":
            self._missing(owner_id)
        detail = reply[1].decode()
        if word == "fenced":
            raise fenced(owner_id, generation, detail)
        if word == "illegal":
            allowed = sorted(MOVES[action])
            raise Conflict(
                f"{owner_id} is {detail}: no move to {action!r} from there",
                field="state",
                rule=f"one of {', '.join(allowed)}",
                value=detail,
            )
        return detail

    def annotate(self, owner_id: str, generation: int, values: Mapping[str, Any]) -> None:
        """Set further fields of the record, as JSON values.

        Raises:
            Fenced: the generation is not current.
            NotFound: no such record.
        """
        what: list[str | int] = [generation]
        for field, value in values.items():
            what += [field, json.dumps(value)]
        self._checked(owner_id, generation, _annotate(self._state, [keys.record(owner_id)], what))

    def position(self, owner_id: str) -> int | None:
        """Its place among the queued, from 1; None when it is not queued."""
        rank = self._state.execute_command("ZRANK", keys.queue(self._kind), owner_id)
        return None if rank is None else int(rank) + 1

    def load(self) -> dict[str, int]:
        """How many are queued and how many are held."""
        waiting, held = self._places()
        return {
            "queued": int(self._state.execute_command("ZCARD", waiting)),
            "held": int(self._state.execute_command("ZCARD", held)),
        }

    def _places(self) -> tuple[str, str]:
        return keys.queue(self._kind), keys.leases(self._kind)

    def _missing(self, owner_id: str) -> NoReturn:
        raise missing(self._kind, owner_id)


def missing(kind: str, owner_id: str) -> NotFound:
    """The error for an id that names nothing."""
    return NotFound(f"no {kind} {owner_id!r}", field="/id", rule=f"an existing {kind}", value=owner_id)


def tenant_of(fields: Fields) -> str:
    """The tenant that a record belongs to."""
    return fields.get("tenant", DEFAULT_TENANT)


def fenced(owner_id: str, generation: int | None, current: str) -> Fenced:
    """The error for a worker that was replaced."""
    return Fenced(
        f"generation {generation} of {owner_id} may not write any more (current: {current})",
        field="generation",
        rule=f"the current generation, {current}, while it is held",
        value=generation,
    )


def clock_arg(clock: Clock | None) -> str:
    """The time for a script in milliseconds; empty lets the server take its own."""
    return str(round(clock() * 1000)) if clock else ""


def as_fields(raw: Mapping[bytes, bytes]) -> Fields:
    """A raw hash as text."""
    return {name.decode(): value.decode() for name, value in raw.items()}


def seconds(text: str | None) -> float | None:
    """Stored milliseconds as seconds."""
    return int(text) / 1000 if text else None


def common(fields: Fields) -> dict[str, Any]:
    """What the records of all kinds have in common, ready for the model classes."""
    return {
        "id": fields["id"],
        "name": fields["name"],
        "tenant": tenant_of(fields),
        "state": fields["state"],
        "spec": json.loads(fields["spec"]),
        "created_at": seconds(fields["created_at"]),
        "started_at": seconds(fields.get("started_at")),
        "ended_at": seconds(fields.get("ended_at")),
        "generation": int(fields["generation"]),
        "model": fields.get("model"),
        "error": json.loads(fields["error"]) if "error" in fields else None,
        "metadata": pairs(fields.get("metadata")),
    }


def transitions(fields: Fields) -> list[Transition]:
    """The stored changes of state and phase."""
    lines = (line.split(" ") for line in fields["transitions"].split("\n"))
    return [
        Transition(state=state, at=int(at) / 1000, phase=phase[0] if phase else None) for state, at, *phase in lines
    ]
