"""The replay buffer on several Redis servers.

Each share (`warploom.replay_shares`) is a `RedisReplay` on one server, its *home*; the homes of a job's shares are all
different. Only the learner opens shares. When a home is lost, the learner opens that share, empty, on the next server
that answers; its units are done again, those of other shares stay. When the home is back, the share returns.

Rollouts are told nothing of that: they claim where there is something to claim, homes first. A server that was cut off
and not lost may still give out units of a share that has moved; nobody takes them from there, and the return of the
share drops them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, TypeVar

from service.connection import Connections
from service.lifecycle import Clock
from service.replay import TRIES, RedisReplay
from warploom.errors import Unavailable
from warploom.replay import Appended, Chunk, Replay, ReplayStats, Side, Unit, UnitClaim
from warploom.replay_checks import check_unit
from warploom.replay_plan import ReplayPlan
from warploom.replay_shares import Shares
from warploom.samplers import Pick, Stored, choose
from warploom.snapshots import pack_shares, unpack, unpack_shares

RETURN_S = 2.0  # between two tries to bring a share home
MOST_HELD = 64
Tell = Callable[[str, dict[str, Any]], None]
AnswerT = TypeVar("AnswerT")
ItemT = TypeVar("ItemT")


def replay_on(
    connections: Connections, job_id: str, generation: int, plan: ReplayPlan, *, tell: Tell | None = None
) -> Replay:
    """The buffer of one job on the replay server, or on all of them; see `ShardedReplay` for the arguments."""
    if len(connections.shards) == 1:
        return RedisReplay(connections, job_id, generation, plan)
    return ShardedReplay(connections, job_id, generation, plan, tell=tell)


class ShardedReplay:
    """The buffer of one job on several replay servers; the contract is `warploom.replay.Replay`'s.

    Samples are drawn from all that is stored, so in proportion to what each server holds. Claims and the limiter look
    at one share at a time.

    Args:
        connections: both Redis roles (only the replay servers are used).
        job_id: the job.
        generation: from the job's claim.
        plan: of the whole buffer.
        clock: seconds since the epoch, for tests; default: each server's own clock.
        tell: called with the kind and the data of an event when a share moves.
    """

    def __init__(
        self,
        connections: Connections,
        job_id: str,
        generation: int,
        plan: ReplayPlan,
        *,
        clock: Clock | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._plan, self._shares = plan, Shares(plan, len(connections.shards))
        servers, first = connections.shards, zlib.crc32(job_id.encode())
        self._copies = [
            [
                RedisReplay(connections, job_id, generation, part, clock=clock, share=i, server=server)
                for server in _turned(servers, first + i)
            ]
            for i, part in enumerate(self._shares.plans)
        ]
        self._tell = tell or (lambda _kind, _data: None)
        # The learner's: where each share lies, what is published, units of a round that is not complete.
        self._at: dict[int, RedisReplay] = {}
        self._current: tuple[int, bytes] | None = None
        self._taken: dict[int, list[Unit]] = {}
        self._lacking = 0
        self._returned_at = 0.0
        # A rollout's: where it claimed the units that it has in hand, and whose turn it is.
        self._held: dict[int, RedisReplay] = {}
        self._last: RedisReplay | None = None
        self._turn = 0

    def reset(self, version: int) -> None:
        """See `Replay.reset`; a share whose home is away lies elsewhere."""
        self._current = None
        self._at.clear()
        self._taken.clear()
        for i, copies in enumerate(self._copies):
            # On all of them: what an earlier generation, or a share that moved, left there goes.
            opened = [copy for copy, _ in _each(copies, lambda copy: copy.reset(version))]
            self._at[i] = opened[0]

    def publish(self, version: int, blob: bytes) -> None:
        """See `Replay.publish`; shares that were lost are opened anew, and those whose home is back return."""
        failed: dict[int, Unavailable] = {}
        for i in range(len(self._copies)):
            try:
                self._publish(i, version, blob)
            except Unavailable as refusal:
                failed[i] = refusal
        if len(failed) == len(self._copies):
            raise failed[0]
        self._current = (version, blob)
        self._taken.clear()
        for i, error in failed.items():
            self._move(i, error)
        self._bring_home()

    def _publish(self, i: int, version: int, blob: bytes) -> None:
        # Not in `_at`: opened by another learner of this generation.
        copies = [self._at[i]] if i in self._at else self._copies[i]
        self._at[i], _ = next(_each(copies, lambda copy: copy.publish(version, blob)))

    def _move(self, i: int, error: Unavailable) -> None:
        """Open a share that was lost on the first server that answers.

        Raises:
            Unavailable: it was not lost and only cannot do this now; or all shares were, and the buffer is to be reset.
        """
        at = self._at.get(i)
        others = (copy for share, copy in self._at.items() if share != i)
        if self._current is None or (at is not None and _holds(at)) or not any(map(_holds, others)):
            raise error
        version, blob = self._current
        copy, _ = next(_each(self._copies[i], lambda copy: _open(copy, version, blob)))
        self._at[i] = copy
        self._taken.pop(i, None)
        was = self._copies[i][0] if at is None else at
        places = {"was": was.server.shown_url, "now": copy.server.shown_url}
        self._tell("shard_lost", {"share": i, **places, "message": error.message})

    def _bring_home(self) -> None:
        """Take shares back to homes that are well again."""
        if time.monotonic() - self._returned_at < RETURN_S:
            return
        for i, copies in enumerate(self._copies):
            if self._at[i] is copies[0]:
                continue
            self._returned_at = time.monotonic()
            with suppress(Unavailable):
                self._return(i, self._at[i], copies[0])

    def _return(self, i: int, away: RedisReplay, home: RedisReplay) -> None:
        """Take one share home, with what it stores; a sync round has just begun, and stores nothing."""
        assert self._current is not None
        version, blob = self._current
        home.version()  # does it answer at all?
        kept = away.snapshot() if self._plan.mode == "async" else None
        _open(home, version, blob, kept)
        self._at[i] = home
        self._taken.pop(i, None)
        self._tell("shard_back", {"share": i, "was": away.server.shown_url, "now": home.server.shown_url})
        away.reset(version)

    def _ask(self, i: int, call: Callable[[RedisReplay], AnswerT]) -> AnswerT | None:
        """What the learner wants of a share; None when that was lost, and was opened anew.

        Raises:
            Unavailable: the buffer was never opened, or no server answers.
        """
        if i not in self._at:
            raise Unavailable("this buffer was never reset: reset it, then publish the current version")
        try:
            return call(self._at[i])
        except Unavailable as error:
            self._move(i, error)
            return None

    def take_round(self, version: int) -> list[Unit] | None:
        """See `Replay.take_round`; what was taken of a round is safe from a loss."""
        for i in range(len(self._copies)):
            if i not in self._taken:
                units = self._ask(i, lambda copy: copy.take_round(version))
                if units is not None:
                    self._taken[i] = self._named(i, units)
        lacking = [i for i in range(len(self._copies)) if i not in self._taken]
        if lacking:
            self._lacking = lacking[0]
            return None
        units = [unit for own in self._taken.values() for unit in own]
        self._taken.clear()
        return sorted(units, key=lambda unit: unit.number)

    def sample(self, n: int, seed: int) -> list[Unit] | None:
        """See `Replay.sample`; fewer than `n` when a server is lost in between and there are no others."""
        taken: dict[int, Unit] = {}
        order: list[int] = []
        for _ in range(TRIES):
            version, epoch, stored = self._candidates()
            if not taken and len(stored) < self._plan.need(n):
                return None
            left = [one for one in stored if one.unit not in taken]
            missing = min(n - len(taken), len(left))
            if not missing:
                break
            picks, epoch = choose(self._plan.sampler, left, missing, seed=seed, version=version, epoch=epoch)
            taken |= self._use(picks, epoch)
            order += [pick.stored.unit for pick in picks if pick.stored.unit in taken]
        if not taken:
            raise Unavailable("the replay changed faster than it could be sampled")
        return [taken[unit] for unit in order]

    def _candidates(self) -> tuple[int, int, list[Stored]]:
        """The current version and epoch, and all units that may be drawn."""
        version, epoch, stored, lacks = 0, 1, list[Stored](), dict[int, int]()
        for i, part in enumerate(self._shares.plans):
            seen = self._ask(i, lambda copy: copy.candidates(0))
            lacks[i] = part.need(part.units_per_round) - (len(seen.stored) if seen else 0)
            if seen is not None:
                version, epoch = max(version, seen.version), max(epoch, seen.epoch)
                stored += [replace(one, unit=self._shares.unit(i, one.unit)) for one in seen.stored]
        self._lacking = max(lacks, key=lambda i: lacks[i])
        return version, epoch, sorted(stored, key=lambda one: one.unit)

    def _use(self, picks: Sequence[Pick], epoch: int) -> dict[int, Unit]:
        """Those of the picks that could be used, by number."""
        used: dict[int, Unit] = {}
        for i in range(len(self._copies)):
            own = [
                replace(pick, stored=replace(pick.stored, unit=number))
                for pick in picks
                for share, number in [self._shares.place(pick.stored.unit)]
                if share == i
            ]
            units = self._ask(i, lambda copy, own=own: copy.use(own, epoch)) if own else None  # type: ignore[misc]
            used |= {unit.number: unit for unit in self._named(i, units or [])}
        return used

    def _named(self, i: int, units: Sequence[Unit]) -> list[Unit]:
        """The units of a share by their numbers in the job."""
        return [replace(unit, number=self._shares.unit(i, unit.number)) for unit in units]

    def reject(self, unit: Unit) -> int:
        """See `Replay.reject`; 0 when the unit was lost meanwhile."""
        i, number = self._shares.place(unit.number)
        self._taken.pop(i, None)
        return self._ask(i, lambda copy: copy.reject(replace(unit, number=number))) or 0

    def snapshot(self) -> bytes:
        """See `Replay.snapshot`."""
        shares = [self._ask(i, lambda copy: copy.snapshot()) for i in range(len(self._copies))]
        return pack_shares([self._at[i].snapshot() if one is None else one for i, one in enumerate(shares)])

    def restore(self, snapshot: bytes) -> int:
        """See `Replay.restore`; a snapshot of another number of servers is refused like a damaged one."""
        shares = unpack_shares(snapshot, len(self._copies))
        for share in shares:
            unpack(share)  # all of them are whole, before any is put back
        return sum(self._ask(i, lambda copy, share=share: copy.restore(share)) or 0 for i, share in enumerate(shares))  # type: ignore[misc]

    def claim(self, worker: str) -> UnitClaim | None:
        """See `Replay.claim`; in the order of numbers, and expired ones first, within each share."""
        for copy, claim in _each(self._looks(), lambda copy: copy.claim(worker)):
            if claim is not None:
                unit = self._shares.unit(copy.share, claim.unit)
                self._turn, self._last, self._held[unit] = copy.share + 1, copy, copy
                if len(self._held) > MOST_HELD:
                    del self._held[next(iter(self._held))]
                return UnitClaim(unit, claim.version)
        return None

    def _looks(self) -> Iterator[RedisReplay]:
        """Where there may be something: the shares' homes, from the one whose turn it is; then the other servers."""
        turned = _turned(self._copies, self._turn)
        return (copies[rank] for rank in range(len(turned[0])) for copies in turned)

    def renew(self, worker: str, unit: int) -> bool:
        """See `Replay.renew`."""
        i, number = self._shares.place(unit)
        return self._place_of(i, unit).renew(worker, number)

    def _place_of(self, i: int, unit: int) -> RedisReplay:
        """Where a unit of share i was claimed."""
        return self._held.get(unit) or self._at.get(i) or self._open_copy(i)

    def _open_copy(self, i: int) -> RedisReplay:
        """Where share i is published."""
        versions = _each(self._copies[i], lambda copy: copy.version())
        return next((copy for copy, version in versions if version >= 0), self._copies[i][0])

    def append(self, chunk: Chunk) -> Appended:
        """See `Replay.append`."""
        return self.extend([chunk])[0]

    def extend(self, chunks: Sequence[Chunk]) -> list[Appended]:
        """See `Replay.extend`; chunks for a server that was lost are not needed, because their unit is done again."""
        check_unit(chunks, self._plan)
        i, number = self._shares.place(chunks[0].unit)
        copy = self._place_of(i, chunks[0].unit)
        try:
            said = copy.extend([replace(chunk, unit=number) for chunk in chunks])
        except Unavailable:
            if not copy.server.away:
                raise
            self._open_copy(i)  # does any server answer?
            return ["duplicate"] * len(chunks)
        if said[-1] == "wait":
            self._turn = i  # to rest there
        return said

    def done(self) -> bool:
        """See `Replay.done`."""
        return any(self._open_copy(i).done() for i in range(len(self._copies)))

    def meta(self, known: int) -> tuple[int, bytes] | None:
        """See `Replay.meta`; a rollout asks where it claimed its unit."""
        if self._last is not None:
            with suppress(Unavailable):
                return self._last.meta(known)
        newest: tuple[int, bytes] | None = None
        for copy, version in _each(self._looks(), lambda copy: copy.version()):
            if version > (newest[0] if newest else known):
                with suppress(Unavailable):
                    newest = copy.meta(known) or newest
        return newest

    def wait(self, side: Side, timeout_s: float) -> None:
        """See `Replay.wait`; it rests at one share: the learner where most is lacking, a rollout where its turn is."""
        if side == "learner":
            self._ask(self._lacking, lambda copy: copy.wait(side, timeout_s))
            return
        shares = _turned(range(len(self._copies)), self._turn)
        next(_each((self._open_copy(i) for i in shares), lambda copy: copy.wait(side, timeout_s)))

    def stats(self) -> ReplayStats:
        """See `Replay.stats`; sums over all shares whose server answers."""
        copies = (self._at.get(i) or self._open_copy(i) for i in range(len(self._copies)))
        found = [stats for _, stats in _each(copies, lambda copy: copy.stats())]
        sums = {field.name: sum(getattr(one, field.name) for one in found) for field in fields(ReplayStats)}
        return ReplayStats(**sums | {"version": max(one.version for one in found)})

    def close(self) -> None:
        """See `Replay.close`."""
        self._current = None
        self._at.clear()
        with suppress(Unavailable):
            for _ in _each((copy for copies in self._copies for copy in copies), lambda copy: copy.close()):
                pass


def _open(copy: RedisReplay, version: int, blob: bytes, snapshot: bytes | None = None) -> None:
    copy.reset(version)
    if snapshot is not None:
        copy.restore(snapshot)
    copy.publish(version, blob)


def _holds(copy: RedisReplay) -> bool:
    """Whether the buffer is there, so that what went wrong was something else."""
    try:
        return copy.version() >= -1
    except Unavailable:
        return False


def _each(
    copies: Iterable[RedisReplay], call: Callable[[RedisReplay], AnswerT]
) -> Iterator[tuple[RedisReplay, AnswerT]]:
    """What each that answers says, asked one by one.

    Raises:
        Unavailable: none answers.
    """
    heard, last = False, None
    for copy in copies:
        try:
            said = call(copy)
        except Unavailable as error:
            last = error
            continue
        heard = True
        yield copy, said
    if last is not None and not heard:
        raise last


def _turned(items: Sequence[ItemT], by: int) -> list[ItemT]:
    """The items from the `by`-th on, and then those before it."""
    by %= len(items)
    return [*items[by:], *items[:by]]
