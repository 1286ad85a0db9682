"""Adaptation requests: from the API to adapters and back."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Literal

from redis.exceptions import ResponseError

from service import keys
from service.connection import Connections, RoleClient
from service.ids import new_id, text
from service.kept import Kept, KeptStore
from service.scripts import Arg, Script
from service.tenancy import Caller, full_name
from service.trips import Trips
from warploom import errors
from warploom.errors import InvalidInput, TimedOut, Unavailable, WarploomError

GROUP = "adapters"
MOST_WAITING = 10_000
BLOCK_MS = 2000  # longest single wait, below the socket's timeout
ORPHANS_EVERY_S = 1.0
SILENT_MS = 5000  # a live adapter renews its requests every second
INLINE_BYTES = 2**14  # up to it a payload travels in the stream, which saves a round trip
LARGE_BYTES = 2**20  # beyond it a payload is read by itself
LONGEST_NAME = 1000  # bytes of a model's full name, more than it can have
BRIEF_TTL_S = 120  # of an answer that one caller waits for
GOOD, BAD = b"+", b"-"

_submit = Script("submit")
_answer = Script("answer", "_keep.lua")
_renew = Script("renew")

Entry = tuple[bytes, Mapping[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptationRequest:
    """One request.

    Args:
        id: `adapt_…` (see `AdaptationQueue.new_id`).
        op: adapt to a support set, or predict with kept parameters.
        model: model name.
        version: model version.
        steps: inner steps.
        lr: inner rate.
        seed: of whatever is random in it.
        payload: a wire blob of kind "support": support_x, support_y, query_x (any may be absent for predict).
        adaptation: for predict: id of the kept adaptation.
        deadline: seconds since the epoch after which nobody waits for the answer.
        inbox: of the API process that waits for the answer (`keys.inbox`); "" when nobody does.
        lasting: the answer is kept for long, because its caller comes back for it.
        content: hash of all that decides the result; what was adapted to equal content before is used again.
        fingerprint: what the id stands for, when it comes from a caller's own key.
        warnings: for the answer.
    """

    id: str
    op: Literal["adapt", "predict"]
    model: str
    version: int
    steps: int
    lr: float
    seed: int
    payload: bytes
    adaptation: str | None = None
    deadline: float
    inbox: str = ""
    lasting: bool = False
    content: str = ""
    fingerprint: str = ""
    warnings: list[str] = field(default_factory=list)
    # Set by `AdaptationQueue.read`: the stream's entry, and the adaptation that a request of equal content made before;
    # by `ShardedQueue.read`, the replay server.
    entry: str = field(default="", compare=False, repr=False)
    before: str = field(default="", compare=False, repr=False)
    shard: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request gets: an answer's blob or an error, and what is kept of it."""

    request: AdaptationRequest
    said: bytes | WarploomError
    kept: Kept | None = None


_TOLD = [one.name for one in fields_of(AdaptationRequest) if one.name not in ("payload", "entry", "before", "shard")]


class AdaptationQueue:
    """Requests and answers on the replay server.

    Args:
        connections: both Redis roles.
        ttl_s: seconds that adapted parameters are kept (`Settings.adaptation_ttl_s`).
        budget_bytes: of all that is kept; the oldest make room.
        most_waiting: requests without an answer beyond which no more are taken.
        server: where they are; default: the first replay server.
        caller: who asks. Adapters have none: they see full names of models (see `service.tenancy.full_name`), so
            that whatever they remember by model is apart for each tenant.

    Attributes:
        kept: the adapted parameters.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        ttl_s: float = 3600,
        budget_bytes: int = 2**28,
        most_waiting: int = MOST_WAITING,
        server: RoleClient | None = None,
        caller: Caller | None = None,
    ) -> None:
        self.server = self._replay = server or connections.replay
        self._ttl_s = ttl_s
        self.kept = KeptStore(self.server, ttl_s=ttl_s, budget_bytes=budget_bytes, caller=caller)
        self._most_waiting = most_waiting
        self._caller = caller
        self._looked = -math.inf

    @staticmethod
    def new_id() -> str:
        """A fresh request id, `adapt_…`; also the id of the adaptation that an adapt request makes."""
        return new_id("adapt")

    def id_of(self, key: str) -> str:
        """The request id that a caller's own key stands for."""
        api_key = "" if self._caller is None else self._caller.key
        number = int.from_bytes(hashlib.sha256(f"{api_key}\n{key}".encode()).digest())
        return f"adapt_{text(number, 20)}"

    def submit(self, request: AdaptationRequest) -> bool:
        """Hand a request to the adapters; False when it was there already.

        Raises:
            Unavailable: the server is down or has no room.
            InvalidInput: its id stands for another request.
        """
        return _taken(int(_submit(self._replay, *self._submission(request))))

    async def submitted(self, replay: Trips, request: AdaptationRequest) -> bool:
        """As `submit`, on an event loop."""
        return _taken(int(await replay.script(_submit, *self._submission(request))))

    def _submission(self, request: AdaptationRequest) -> tuple[list[str], list[Arg]]:
        told = {name: getattr(request, name) for name in _TOLD}
        if self._caller is not None:
            told["model"] = full_name(self._caller.tenant, request.model)
        told["bytes"] = len(request.payload)
        lifetime_ms = max(1, round((request.deadline - time.time() + keys.REPLY_TTL_S) * 1000))
        once = keys.fingerprint(request.id) if request.fingerprint else ""
        same = keys.same(request.content) if request.content else ""
        where = [keys.REQUESTS, keys.payload(request.id), reply_key(request.id), once, same]
        what: list[Arg] = [json.dumps(told), told["model"], request.payload, lifetime_ms, self._most_waiting]
        once_s = (lifetime_ms + self._life_ms(request)) // 1000
        return where, [*what, request.fingerprint, once_s, INLINE_BYTES]

    def read(self, consumer: str, count: int, block_ms: int, *, idle_ms: int | None = None) -> list[AdaptationRequest]:
        """Up to `count` requests for this consumer; those of consumers that went silent come first.

        Requests past their deadline are answered with `TimedOut` and left out.

        Args:
            consumer: a name that no other live adapter has.
            count: most requests.
            block_ms: milliseconds to wait for a first one; 0 to not wait.
            idle_ms: look now for requests that were silent for so many milliseconds. By default every second, for
                those whose adapter did not renew them (`renew`).
        """
        try:
            entries = self._abandoned(consumer, count, idle_ms)
            if len(entries) < count:
                entries += self._fresh(consumer, count - len(entries), 0 if entries else block_ms)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._need_group()  # the first start, or the server forgot everything
            entries = self._fresh(consumer, count, block_ms)
        return self._requests(entries)

    def renew(self, consumer: str) -> int:
        """Say that the requests which `consumer` holds are being worked on; how many they are."""
        return int(_renew(self._replay, [keys.REQUESTS], [GROUP, consumer, 0]))

    def release(self, consumer: str) -> int:
        """Say that `consumer` is dead: others take its requests over at once; how many they are."""
        return int(_renew(self._replay, [keys.REQUESTS], [GROUP, consumer, 10 * SILENT_MS]))

    def answer(self, request: AdaptationRequest, blob: bytes) -> bool:
        """Answer a request; False when it had been answered before (the first answer stays)."""
        return self.finish([Outcome(request, blob)])[0]

    def fail(self, request: AdaptationRequest, error: WarploomError) -> bool:
        """Answer a request with an error; False when it had been answered before."""
        return self.finish([Outcome(request, error)])[0]

    def finish(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Answer requests and keep what they made, in one round trip; False for each that had been answered before."""
        calls = [self._answer(outcome) for outcome in outcomes]
        return [bool(said) for said in _answer.many(self._replay, calls)] if calls else []

    def _answer(self, outcome: Outcome) -> tuple[list[str], list[Arg]]:
        request, said, kept = outcome.request, outcome.said, outcome.kept
        raw = BAD + json.dumps(said.as_problem(), default=str).encode() if isinstance(said, Exception) else GOOD + said
        life_ms = self._life_ms(request) if request.lasting or not request.inbox else 1000 * BRIEF_TTL_S
        where, what = self.kept.keeping(request.id, kept or Kept({}, b""), request.content)
        return (
            [reply_key(request.id), keys.payload(request.id), keys.REQUESTS, request.inbox, *where],
            [
                *(raw, life_ms, GROUP, request.entry, request.id, keys.REPLY_TTL_S),
                *(what if kept else ["", *what[1:]]),
                request.model,
            ],
        )

    def _life_ms(self, request: AdaptationRequest) -> int:
        return 1000 * keys.REPLY_TTL_S if not request.lasting else max(1, round(1000 * self._ttl_s))

    def wait(self, request_id: str, timeout_s: float) -> bytes:
        """The answer, once there; an answer can be read again until it expires.

        Raises:
            WarploomError: the failure, as the class it was raised with.
            TimedOut: no answer in time.
        """
        end = time.monotonic() + timeout_s
        while True:
            left_ms = round((end - time.monotonic()) * 1000)
            raw = self.look(request_id, left_ms)
            if raw is not None:
                return parse_reply(raw)
            if left_ms <= 0:
                raise TimedOut(f"no answer to {request_id} within {timeout_s:g} seconds")

    def look(self, request_id: str, block_ms: int) -> bytes | None:
        """The answer as it is stored, for `parse_reply`; None when none comes in that time (2000 ms at most)."""
        blocks = ("BLOCK", min(BLOCK_MS, block_ms)) if block_ms > 0 else ()
        found = self._replay.execute_command("XREAD", "COUNT", 1, *blocks, "STREAMS", reply_key(request_id), "0")
        raw: bytes | None = next(iter(dict(found).values()))[0][1][b"reply"] if found else None
        return raw

    def pending(self) -> int:
        """Requests that are not answered yet."""
        return int(self._replay.execute_command("XLEN", keys.REQUESTS))

    def reply(self, request_id: str) -> bytes | None:
        """The answer to a request, for whoever comes back for it; None while there is none.

        Raises:
            NotFound: no such request.
            WarploomError: the failure, as the class it was raised with.
        """
        found = self._answer_to(request_id)
        if not found:
            start = self._replay.execute_command("GETRANGE", keys.payload(request_id), 0, LONGEST_NAME)
            model, answer = start.partition(b"\n")[0], None
            # An answer takes the payload away; it may have come since the first look.
            found = [] if start else self._answer_to(request_id)
        if found:
            fields = found[0][1]
            model, answer = fields[b"model"], fields[b"reply"]
        if not model or self.kept.visible({"model": model.decode()}) is None:
            raise self.kept.missing(request_id)
        return None if answer is None else parse_reply(answer)

    def _answer_to(self, request_id: str) -> Sequence[Entry]:
        found: list[Entry] = self._replay.execute_command("XRANGE", reply_key(request_id), "-", "+", "COUNT", 1)
        return found

    def _need_group(self) -> None:
        try:
            self._replay.execute_command("XGROUP", "CREATE", keys.REQUESTS, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _abandoned(self, consumer: str, count: int, idle_ms: int | None) -> list[Entry]:
        if idle_ms is None and time.monotonic() - self._looked < ORPHANS_EVERY_S:
            return []
        self._looked = time.monotonic()
        silent_ms = SILENT_MS if idle_ms is None else idle_ms
        reply = self._replay.execute_command(
            "XAUTOCLAIM", keys.REQUESTS, GROUP, consumer, silent_ms, "0-0", "COUNT", count, parse_justid=False
        )
        # Redis 6.2 gives an entry that was deleted as (None, None).
        return [(entry, fields) for entry, fields in reply[1] if fields]

    def _fresh(self, consumer: str, count: int, block_ms: int) -> list[Entry]:
        blocks = ("BLOCK", min(BLOCK_MS, block_ms)) if block_ms > 0 else ()
        found = self._replay.execute_command(
            "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, *blocks, "STREAMS", keys.REQUESTS, ">"
        )
        return [entry for entries in dict(found or {}).values() for entry in entries]

    def _requests(self, entries: Sequence[Entry]) -> list[AdaptationRequest]:
        told = [(entry.decode(), fields, json.loads(fields[b"request"])) for entry, fields in entries]
        apart = [(about["id"], about.pop("bytes")) for _, fields, about in told if b"payload" not in fields]
        found = self._payloads(apart)
        requests: list[AdaptationRequest] = []
        late: list[AdaptationRequest] = []
        for entry, fields, about in told:
            about.pop("bytes", None)
            payload = fields.get(b"payload", found.get(about["id"]))
            before = fields.get(b"before", b"").decode()
            request = AdaptationRequest(**about, payload=payload or b"", entry=entry, before=before)
            (late if payload is None or request.deadline < time.time() else requests).append(request)
        self.finish([Outcome(one, TimedOut(f"{one.id} was not begun before its deadline")) for one in late])
        return requests

    def _payloads(self, sizes: Sequence[tuple[str, int]]) -> dict[str, bytes | None]:
        """The payloads of requests that are too large for the stream, by id; None for one that is gone."""
        small = [name for name, size in sizes if size <= LARGE_BYTES]
        blobs = self._replay.execute_command("MGET", *map(keys.payload, small)) if small else []
        found = dict(zip(small, blobs, strict=True))
        found |= {name: self._replay.get_large(keys.payload(name)) for name, size in sizes if size > LARGE_BYTES}
        return {name: None if blob is None else blob.partition(b"\n")[2] for name, blob in found.items()}


def _taken(code: int) -> bool:
    """What a submission's return value means: True, or False when the request was there already.

    Raises:
        Unavailable: too many wait.
        InvalidInput: the id stands for another request.
    """
    if code == -1:
        raise Unavailable("too many adaptation requests are waiting already; try again later", rule="room in the queue")
    if code == -2:
        raise InvalidInput(
            "this Idempotency-Key was used for another request",
            field="/headers/idempotency-key",
            rule="one key for one request",
        )
    return code == 1


def reply_key(request_id: str) -> str:
    """The stream (replay server) that will hold the answer as its only entry, in the field `reply`.

    An asynchronous reader waits with `XREAD BLOCK ms STREAMS <reply_key> 0` and gives `fields[b"reply"]` to
    `parse_reply`. The key is there from the answer until it expires; reading does not consume it.
    """
    return keys.reply(request_id)


def parse_reply(raw: bytes) -> bytes:
    """The answer's blob.

    Raises:
        WarploomError: the failure, as the class it was raised with.
    """
    if raw[:1] == GOOD:
        return raw[1:]
    problem = json.loads(raw[1:])
    first = (problem.get("errors") or [{}])[0]
    raise _CLASSES.get(problem["code"], WarploomError)(
        problem["detail"], field=first.get("pointer"), rule=first.get("rule"), value=first.get("value")
    )


_CLASSES: dict[str, type[WarploomError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WarploomError)
}
