"""The replay buffer on Redis."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast, overload

from service import keys
from service.connection import Connections, RoleClient
from service.lifecycle import Clock, clock_arg
from service.scripts import Script
from warploom.errors import Fenced, Unavailable
from warploom.replay import Appended, Chunk, ReplayPlan, ReplayStats, Side, Unit, UnitClaim
from warploom.replay_checks import check_unit, not_current, other_parts, published_already
from warploom.samplers import Pick, Stored, choose
from warploom.snapshots import Cursor, Snapshot, pack, unpack

TRIES = 20  # of a read that others change in between
SENT_BYTES = 8 * 2**20
_COUNTERS = ("version", "base", "first", "next", "sampled", "inserted", "left")

_scripts = {
    name: Script(f"replay_{name}", "_replay.lua")
    for name in (
        "reset", "publish", "claim", "renew", "append", "round", "candidates", "commit", "version", "reject", "blocked",
        "listing", "restore", "put", "close",
    )
}  # fmt: skip


class Candidates(NamedTuple):
    """The units that may be drawn, in the order of their numbers, and the current version and epoch."""

    version: int
    epoch: int
    stored: Sequence[Stored]


class RedisReplay:
    """The buffer of one job on the replay server; the contract is `warploom.replay.Replay`'s.

    Args:
        connections: both Redis roles (only `replay` is used).
        job_id: the job.
        generation: from the job's claim.
        plan: the buffer's settings.
        clock: seconds since the epoch, for tests; default: the replay server's own clock.
        server: where it lies; default: the first replay server.
        share: its number, when it is one share of the job's buffer (`service.sharded_replay`); `plan` is the share's.

    Attributes:
        server: where it lies.
        share: its number; 0 for a whole buffer.
    """

    def __init__(
        self,
        connections: Connections,
        job_id: str,
        generation: int,
        plan: ReplayPlan,
        *,
        clock: Clock | None = None,
        server: RoleClient | None = None,
        share: int | None = None,
    ) -> None:
        self.server = self._client = server or connections.replay
        self._job = job_id
        self._share, self.share = share, share or 0
        self._generation = generation
        self._plan = plan
        self._clock = clock
        self._token, self._numbers = secrets.token_hex(6), itertools.count()
        parts = ("state", "units", "ready", "claims", "owners", "wake:learner", "wake:rollouts")
        self._last: dict[Side, bytes] = {}
        most = "" if plan.max_units is None else plan.max_units
        drops = int(plan.when_full == "drop_oldest")
        self._limits = (plan.max_bytes, most, drops, plan.mode, plan.max_staleness, plan.samples_per_insert)
        self._keys = [keys.fence(job_id), *map(self._key, parts)]
        self._prefixes = (self._key("c:"), self._key("m:"))

    def _key(self, part: str) -> str:
        return keys.replay(self._job, part, self._share)

    def reset(self, version: int) -> None:
        """See `Replay.reset`; also installs the generation, so that older ones are fenced."""
        self._run("reset", version, version * self._plan.units_per_round)

    def publish(self, version: int, blob: bytes) -> None:
        """See `Replay.publish`."""
        plan = self._plan
        first = version * plan.units_per_round if plan.mode == "sync" else ""
        opened = min(version + 1, plan.rounds) * plan.units_per_round
        word, *detail = self._run("publish", version, blob, first, opened)
        self._need_buffer(word)
        if word == "old":
            raise not_current(version, int(detail[0]))

    def claim(self, worker: str) -> UnitClaim | None:
        """See `Replay.claim`."""
        plan = self._plan
        lead = plan.ahead * plan.units_per_round
        need = plan.need(plan.units_per_round)
        rate = plan.samples_per_insert
        limits = (plan.mode, plan.rounds, plan.units_per_round, lead, plan.window, rate, need)
        word, *given = self._run("claim", worker, self._lease_ms(), *limits)
        return UnitClaim(int(given[0]), int(given[1])) if word == "ok" else None

    def renew(self, worker: str, unit: int) -> bool:
        """See `Replay.renew`."""
        return bool(self._run("renew", worker, unit, self._lease_ms())[0] == "ok")

    def done(self) -> bool:
        """See `Replay.done`."""
        return self.version() >= self._plan.rounds

    def version(self) -> int:
        """The current version; -1 while there is none, -2 when this generation has no buffer here."""
        word, *version = self._run("version")
        return int(version[0]) if word == "ok" else -2

    def meta(self, known: int) -> tuple[int, bytes] | None:
        """See `Replay.meta`."""
        for _ in range(TRIES):
            version = self.version()
            if version <= max(known, -1):
                return None
            blob = self._client.get_large(self._key(f"m:{version}"))
            if blob is not None:
                return version, blob
        raise Unavailable(f"the meta-state of {self._job} changed faster than it could be read")

    def append(self, chunk: Chunk) -> Appended:
        """See `Replay.append`."""
        return self.extend([chunk])[0]

    def extend(self, chunks: Sequence[Chunk]) -> list[Appended]:
        """See `Replay.extend`; chunks of up to `SENT_BYTES` together travel in one round trip."""
        plan = self._plan
        check_unit(chunks, plan)
        answers: list[Appended] = []
        for group in _groups(chunks):
            sent, first = self._sent([chunk.blob for chunk in group])
            parts = [value for key, c in zip(sent, group, strict=True) for value in (c.part, key)]
            one = group[0]
            own = (one.unit, one.parts, one.version, *self._limits, repr(one.priority), *parts)
            said = _scripts["append"].after(self._client, first, self._keys, (*self._shared(), *own))
            word, *words = self._said(said)
            if word == "mismatch":
                raise other_parts(one, int(words[0]))
            answers += ["duplicate"] * len(group) if word == "lost" else [cast(Appended, w.decode()) for w in words]
            if answers[-1] == "wait":
                break
        return answers

    def take_round(self, version: int) -> list[Unit] | None:
        """See `Replay.take_round`."""
        size = self._plan.units_per_round
        word, *parts = self._run("round", version, size)
        self._need_buffer(word)
        if word == "old":
            raise not_current(version, int(parts[0]))
        if word == "none":
            return None
        units = range(version * size, (version + 1) * size)
        # Only `reset` and `publish` drop units of the current round, and both are the caller's own.
        return self._read([(unit, version, int(count)) for unit, count in zip(units, parts, strict=True)])

    def sample(self, n: int, seed: int) -> list[Unit] | None:
        """See `Replay.sample`."""
        plan = self._plan
        for _ in range(TRIES):
            seen = self.candidates(plan.need(n))
            if seen is None:
                return None
            picks, epoch = choose(plan.sampler, seen.stored, n, seed=seed, version=seen.version, epoch=seen.epoch)
            units = self.use(picks, epoch)
            if units is not None:
                return units
        raise Unavailable(f"the replay of {self._job} changed faster than it could be sampled")

    def candidates(self, least: int) -> Candidates | None:
        """The units that may be drawn, after those that are stale were dropped; None when they are fewer than `least`.

        Raises:
            Unavailable: the buffer was lost; reset it.
        """
        word, *found = self._run("candidates", least, self._plan.max_staleness, self._plan.samples_per_insert)
        self._need_buffer(word)
        if word == "none":
            return None
        return Candidates(int(found[0]), int(found[1]), _Listed(found[2]) if found[2] else [])

    def use(self, picks: Sequence[Pick], epoch: int) -> list[Unit] | None:
        """Units that were drawn, counted as sampled; None when one is not there any more: then none is counted.

        Raises:
            Unavailable: the buffer was lost; reset it.
        """
        plan = self._plan
        units = self._read([(pick.stored.unit, pick.stored.version, pick.stored.parts) for pick in picks])
        if units is None:
            return None
        counted = [value for pick in picks for value in self._counted(pick)]
        word = self._run("commit", plan.samples_per_insert, int(plan.ages), epoch, *counted)[0]
        self._need_buffer(word)
        if word != "ok":
            return None
        return [replace(unit, weight=pick.weight) for unit, pick in zip(units, picks, strict=True)]

    def _counted(self, pick: Pick) -> tuple[int, int, int, int]:
        unit = pick.stored.unit
        return unit, pick.stored.version, self._plan.cap(unit), pick.epoch

    def reject(self, unit: Unit) -> int:
        """See `Replay.reject`."""
        word, *times = self._run("reject", unit.number, unit.version, self._plan.mode)
        self._need_buffer(word)
        return int(times[0])

    def stats(self) -> ReplayStats:
        """See `Replay.stats`."""
        _, state, _, ready, claims, *_ = self._keys
        with self._client.translated(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(state)
            pipe.zcard(ready)
            pipe.zcard(claims)
            raw, units, claimed = pipe.execute()
        names = (
            "version",
            "bytes",
            "inserted",
            "sampled",
            "duplicates",
            "dropped_stale",
            "rejected",
            "waits",
            "evicted",
        )
        least = {"version": -1}
        counts = {name: int(raw.get(name.encode(), least.get(name, 0))) for name in names}
        return ReplayStats(
            units=units,
            claims=claimed,
            blocked_learner_s=float(raw.get(b"blocked_learner_s", 0)),
            blocked_rollouts_s=float(raw.get(b"blocked_rollouts_s", 0)),
            **counts,
        )

    def snapshot(self) -> bytes:
        """See `Replay.snapshot`."""
        word, *rest = self._run("listing")
        self._need_buffer(word)
        fields, flat, claimed = rest
        state = {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
        cursor = Cursor(
            **{name: int(state.get(name, 0)) for name in _COUNTERS},
            returned=float(state.get("returned", 0)),
            epoch=max(1, int(state.get("epoch", 0))),
        )
        units = []
        for one in _stored(flat):
            read = self._read([(one.unit, one.version, one.parts)])
            if read is not None:
                units.append((one, read[0].parts))
        return pack(Snapshot(cursor, units, sorted(map(int, claimed))))

    def restore(self, snapshot: bytes) -> int:
        """See `Replay.restore`."""
        found = unpack(snapshot)
        word, *version = self._run("version")
        self._need_buffer(word)
        cursor = found.cursor.moved(self._base(), self._plan)
        fields = [value for name in (*_COUNTERS[1:], "returned", "epoch") for value in (name, getattr(cursor, name))]
        if self._run("restore", len(fields) // 2, *fields, *found.claimed)[0] == "published":
            raise published_already(int(version[0]))
        return sum(self._put(one, blobs) for one, blobs in found.units)

    def _base(self) -> int:
        return int(self._client.execute_command("HGET", self._keys[1], "base") or 0)

    def _put(self, one: Stored, blobs: Sequence[bytes]) -> bool:
        sent, first = self._sent(blobs)
        own = (one.unit, one.version, sum(map(len, blobs)), one.uses, repr(one.priority), one.epoch)
        args = (*self._shared(), *own, self._plan.max_bytes, *sent)
        return bool(self._said(_scripts["put"].after(self._client, first, self._keys, args))[0] == "ok")

    def _sent(self, blobs: Sequence[bytes]) -> tuple[list[str], list[tuple[str, str, bytes, str, int]]]:
        """Keys of their own for blobs, and the commands that send them there."""
        sent = [self._key(f"w:{self._token}:{next(self._numbers)}") for _ in blobs]
        return sent, [("SET", key, blob, "EX", keys.SENT_TTL_S) for key, blob in zip(sent, blobs, strict=True)]

    def wait(self, side: Side, timeout_s: float) -> None:
        """See `Replay.wait`: a blocking read of a stream of one entry, from the last one that this object saw on."""
        started = time.monotonic()
        stream = self._keys[6 if side == "learner" else 7]
        limit_ms = max(1, round(1000 * timeout_s))
        told = self._client.execute_command(
            "XREAD", "COUNT", 1, "BLOCK", limit_ms, "STREAMS", stream, self._last.get(side, b"0")
        )
        if told:
            ((_, entries),) = told
            self._last[side] = entries[-1][0]
        word = self._run("blocked", f"blocked_{side}_s", f"{time.monotonic() - started:.6f}")[0]
        if word == "full" and side == "learner":
            # Rollouts are told when they claim or append; nothing else would tell the learner what it waits for.
            raise Unavailable(f"the replay server at {self._client.shown_url} has no memory left")

    def close(self) -> None:
        """See `Replay.close`."""
        self._run("close")

    def _lease_ms(self) -> int:
        return round(self._plan.lease_s * 1000)

    def _read(self, units: list[tuple[int, int, int]]) -> list[Unit] | None:
        names = [self._key(f"c:{unit}:{part}") for unit, _, parts in units for part in range(parts)]
        values = self._client.get_many(names)
        if values is None:
            return None
        blobs = iter(values)
        return [Unit(unit, version, [next(blobs) for _ in range(parts)]) for unit, version, parts in units]

    def _run(self, name: str, *own: str | bytes | int | float) -> list[Any]:
        return self._said(_scripts[name](self._client, self._keys, (*self._shared(), *own)))

    def _shared(self) -> tuple[str | int, ...]:
        return (clock_arg(self._clock), self._generation, keys.REPLAY_TTL_S, *self._prefixes)

    def _said(self, reply: list[Any]) -> list[Any]:
        word, *detail = reply
        if word == b"fenced":
            raise Fenced(
                f"generation {self._generation} of {self._job} was replaced: its replay belongs to a newer one",
                field="generation",
                rule="the current generation",
                value=self._generation,
            )
        return [word.decode(), *detail]

    def _need_buffer(self, word: str) -> None:
        if word == "lost":
            raise Unavailable(
                f"the replay server holds no buffer of generation {self._generation} of {self._job}: reset it, then "
                "publish the current version"
            )


def _groups(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks that travel together."""
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if group and size + len(chunk.blob) > SENT_BYTES:
            yield group
            group, size = [], 0
        group.append(chunk)
        size += len(chunk.blob)
    if group:
        yield group


def _stored(flat: Sequence[bytes]) -> list[Stored]:
    """Units and their entries, as the scripts write them."""
    return [_read_entry(unit, *entry.split(b" ")) for unit, entry in zip(flat[::2], flat[1::2], strict=True)]


def _read_entry(*words: bytes) -> Stored:
    unit, version, parts, _, _, uses, priority, epoch = words
    return Stored(int(unit), int(version), int(parts), int(uses), float(priority), int(epoch))


class _Listed(Sequence[Stored]):
    """Units and their entries, one on a line, of which most samplers look at few."""

    def __init__(self, text: bytes) -> None:
        self._lines = text.split(b"\n")

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Stored: ...

    @overload
    def __getitem__(self, index: slice) -> list[Stored]: ...

    def __getitem__(self, index: int | slice) -> Stored | list[Stored]:
        if isinstance(index, slice):
            return [_read_entry(*line.split(b" ")) for line in self._lines[index]]
        return _read_entry(*self._lines[index].split(b" "))
