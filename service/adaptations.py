"""Adaptation requests: from the API to adapters and back, and the adapted parameters that are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from redis.exceptions import ResponseError

from service import keys
from service.connection import Connections
from service.ids import new_id
from service.scripts import Script
from service.tenancy import Caller, full_name, split_name
from warploom import errors
from warploom.errors import NotFound, TimedOut, Unavailable, WarploomError

GROUP = "adapters"
MOST_WAITING = 10_000
BLOCK_MS = 2000  # longest single wait, below the socket's timeout
GOOD, BAD = b"+", b"-"

_submit = Script("submit")
_answer = Script("answer")
_keep = Script("keep")

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
    entry: str = field(default="", compare=False, repr=False)  # of the stream; set by `AdaptationQueue.read`


class AdaptationQueue:
    """Requests, answers and kept parameters on the replay server.

    Args:
        connections: both Redis roles.
        ttl_s: seconds that adapted parameters are kept (`Settings.adaptation_ttl_s`).
        caller: who asks. Adapters have none: they see full names of models (see `service.tenancy.full_name`), so
            that whatever they remember by model is apart for each tenant.
    """

    def __init__(self, connections: Connections, *, ttl_s: float = 3600, caller: Caller | None = None) -> None:
        self._replay = connections.replay
        self._ttl_s = ttl_s
        self._caller = caller

    @staticmethod
    def new_id() -> str:
        """A fresh request id, `adapt_…`; also the id of the adaptation that an adapt request makes."""
        return new_id("adapt")

    def submit(self, request: AdaptationRequest) -> None:
        """Hand a request to the adapters.

        Raises:
            Unavailable: the server is down or has no room.
        """
        told = {name: value for name, value in asdict(request).items() if name not in ("payload", "entry")}
        if self._caller is not None:
            told["model"] = full_name(self._caller.tenant, request.model)
        lifetime_ms = max(1, round((request.deadline - time.time() + keys.REPLY_TTL_S) * 1000))
        where = [keys.REQUESTS, keys.payload(request.id), reply_key(request.id)]
        what = (json.dumps(told), request.payload, lifetime_ms, MOST_WAITING)
        if int(_submit(self._replay, where, what)) < 0:
            raise Unavailable(f"{MOST_WAITING} adaptation requests are waiting already; try again later")

    def read(self, consumer: str, count: int, block_ms: int, *, idle_ms: int = 30_000) -> list[AdaptationRequest]:
        """Up to `count` requests for this consumer; those of consumers that went silent come first.

        Requests past their deadline are answered with `TimedOut` and left out.

        Args:
            consumer: a name that no other live adapter has.
            count: most requests.
            block_ms: milliseconds to wait for a first one; 0 to not wait.
            idle_ms: milliseconds after which an unanswered request of another consumer is taken over.
        """
        self._need_group()
        try:
            entries = self._abandoned(consumer, count, idle_ms)
            if len(entries) < count:
                entries += self._fresh(consumer, count - len(entries), 0 if entries else block_ms)
        except ResponseError as error:
            if "NOGROUP" in str(error):  # the server restarted since `_need_group` and forgot everything
                return []
            raise
        requests = (self._request(entry, fields) for entry, fields in entries)
        return [request for request in requests if request is not None]

    def answer(self, request: AdaptationRequest, blob: bytes) -> bool:
        """Answer a request; False when it had been answered before (the first answer stays)."""
        return self._reply(request, GOOD + blob)

    def fail(self, request: AdaptationRequest, error: WarploomError) -> bool:
        """Answer a request with an error; False when it had been answered before."""
        return self._reply(request, BAD + json.dumps(error.as_problem(), default=str).encode())

    def wait(self, request_id: str, timeout_s: float) -> bytes:
        """The answer, once there; an answer can be read again until it expires.

        Raises:
            WarploomError: the failure, as the class it was raised with.
            TimedOut: no answer in time.
        """
        end = time.monotonic() + timeout_s
        while True:
            left_ms = round((end - time.monotonic()) * 1000)
            blocks = ("BLOCK", min(BLOCK_MS, left_ms)) if left_ms > 0 else ()
            found = self._replay.execute_command("XREAD", "COUNT", 1, *blocks, "STREAMS", reply_key(request_id), "0")
            if found:
                (entries,) = dict(found).values()
                return parse_reply(entries[0][1][b"reply"])
            if left_ms <= 0:
                raise TimedOut(f"no answer to {request_id} within {timeout_s:g} seconds")

    def keep(self, adaptation_id: str, info: dict[str, Any], blob: bytes) -> None:
        """Keep adapted parameters until their time-to-live is over.

        Args:
            adaptation_id: id of the adapt request.
            info: the `warploom.records.Adaptation` as JSON.
            blob: the encoded parameters.
        """
        what = (json.dumps(info), blob, max(1, round(self._ttl_s * 1000)))
        _keep(self._replay, [keys.adapted(adaptation_id)], what)

    def kept(self, adaptation_id: str) -> tuple[dict[str, Any], bytes]:
        """What `keep` stored: the record's JSON and the parameters.

        Raises:
            NotFound: unknown or expired.
        """
        raw, blob = self._replay.execute_command("HMGET", keys.adapted(adaptation_id), "info", "blob")
        info = None if raw is None else self._visible(json.loads(raw))
        if info is None:
            raise NotFound(
                f"no adaptation {adaptation_id!r}: unknown, or expired (adapted models are kept for "
                f"{self._ttl_s:g} seconds); adapt again",
                field="adaptation",
                rule="an adaptation that has not expired",
                value=adaptation_id,
            )
        return info, blob

    def _visible(self, info: dict[str, Any]) -> dict[str, Any] | None:
        """The record as the caller may see it; None when it is another tenant's."""
        if self._caller is None:
            return info
        tenant, name = split_name(info["model"])
        return info | {"model": name} if tenant == self._caller.tenant else None

    def forget(self, adaptation_id: str) -> None:
        """Drop kept parameters now; nothing happens when there are none."""
        if self._caller is not None:
            raw = self._replay.execute_command("HGET", keys.adapted(adaptation_id), "info")
            if raw is None or self._visible(json.loads(raw)) is None:
                return
        self._replay.execute_command("UNLINK", keys.adapted(adaptation_id))

    def pending(self) -> int:
        """Requests that are not answered yet."""
        return int(self._replay.execute_command("XLEN", keys.REQUESTS))

    def _need_group(self) -> None:
        try:
            self._replay.execute_command("XGROUP", "CREATE", keys.REQUESTS, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _abandoned(self, consumer: str, count: int, idle_ms: int) -> list[Entry]:
        reply = self._replay.execute_command(
            "XAUTOCLAIM", keys.REQUESTS, GROUP, consumer, idle_ms, "0-0", "COUNT", count, parse_justid=False
        )
        # Redis 6.2 gives an entry that was deleted as (None, None).
        return [(entry, fields) for entry, fields in reply[1] if fields]

    def _fresh(self, consumer: str, count: int, block_ms: int) -> list[Entry]:
        blocks = ("BLOCK", min(BLOCK_MS, block_ms)) if block_ms > 0 else ()
        found = self._replay.execute_command(
            "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, *blocks, "STREAMS", keys.REQUESTS, ">"
        )
        return [entry for entries in dict(found or {}).values() for entry in entries]

    def _request(self, entry: bytes, fields: Mapping[bytes, bytes]) -> AdaptationRequest | None:
        told = json.loads(fields[b"request"])
        payload = self._replay.get_large(keys.payload(told["id"]))
        request = AdaptationRequest(**told, payload=payload or b"", entry=entry.decode())
        if payload is None or request.deadline < time.time():
            self.fail(request, TimedOut(f"{request.id} was not begun before its deadline"))
            return None
        return request

    def _reply(self, request: AdaptationRequest, raw: bytes) -> bool:
        where = [reply_key(request.id), keys.payload(request.id), keys.REQUESTS]
        return bool(_answer(self._replay, where, [raw, keys.REPLY_TTL_S, GROUP, request.entry]))


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
