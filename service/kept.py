"""Adapted parameters that are kept for a while, within a budget of bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service import keys
from service.connection import RoleClient
from service.scripts import Arg, Script
from service.tenancy import Caller, split_name
from service.trips import Trips
from warploom.errors import NotFound

_keep = Script("keep", "_keep.lua")
_forget = Script("forget", "_keep.lua")


@dataclass(frozen=True, slots=True)
class Kept:
    """Adapted parameters to keep: the `warploom.records.Adaptation` as JSON values, and the encoded parameters."""

    info: dict[str, Any]
    blob: bytes


class KeptStore:
    """Adapted parameters on the replay server.

    Args:
        server: where they are.
        ttl_s: seconds that they are kept (`Settings.adaptation_ttl_s`).
        budget_bytes: of all that is kept; the oldest make room.
        caller: who asks; see `service.adaptations.AdaptationQueue`.
    """

    def __init__(self, server: RoleClient, *, ttl_s: float, budget_bytes: int, caller: Caller | None = None) -> None:
        self._replay = server
        self._ttl_s, self._budget_bytes = ttl_s, budget_bytes
        self._caller = caller

    def keep(self, adaptation_id: str, info: dict[str, Any], blob: bytes, *, content: str = "") -> bool:
        """Keep adapted parameters until their time-to-live is over, or newer ones need the room.

        Args:
            adaptation_id: id of the adapt request.
            info: the `warploom.records.Adaptation` as JSON.
            blob: the encoded parameters.
            content: of the request (`AdaptationRequest.content`).

        Returns:
            False when they are larger than the whole budget, and not kept.
        """
        return bool(_keep(self._replay, *self.keeping(adaptation_id, Kept(info, blob), content)))

    def get(self, adaptation_id: str) -> tuple[dict[str, Any], bytes]:
        """What `keep` stored: the record's JSON and the parameters.

        Raises:
            NotFound: unknown or expired.
        """
        raw, blob = self._replay.execute_command("HMGET", keys.adapted(adaptation_id), "info", "blob")
        return self._read(adaptation_id, raw), blob

    async def info(self, replay: Trips, adaptation_id: str) -> dict[str, Any]:
        """The record's JSON alone, on an event loop. Raises as `get` does."""
        return self._read(adaptation_id, await replay.run("HGET", keys.adapted(adaptation_id), "info"))

    def _read(self, adaptation_id: str, raw: bytes | None) -> dict[str, Any]:
        info = None if raw is None else self.visible(json.loads(raw))
        if info is None:
            raise self.missing(adaptation_id)
        return info

    def visible(self, info: dict[str, Any]) -> dict[str, Any] | None:
        """The record as the caller may see it; None when it is another tenant's."""
        if self._caller is None:
            return info
        tenant, name = split_name(info["model"])
        return info | {"model": name} if tenant == self._caller.tenant else None

    def get_many(self, adaptation_ids: Sequence[str]) -> list[tuple[dict[str, Any], bytes] | None]:
        """What `keep` stored under each id, in one round trip; None for what is unknown or expired."""
        pipe = self._replay.pipeline(transaction=False)
        for adaptation_id in adaptation_ids:
            pipe.execute_command("HMGET", keys.adapted(adaptation_id), "info", "blob")  # type: ignore[no-untyped-call]
        with self._replay.translated():
            found = pipe.execute() if adaptation_ids else []
        return [None if info is None else (json.loads(info), blob) for info, blob in found]

    def missing(self, adaptation_id: str) -> NotFound:
        """The error that says there is no adaptation of this id."""
        return NotFound(
            f"no adaptation {adaptation_id!r}: unknown, expired (adapted models are kept for {self._ttl_s:g} seconds), "
            "or newer ones needed its room; adapt again",
            field="adaptation",
            rule="an adaptation that has not expired",
            value=adaptation_id,
        )

    def forget(self, adaptation_id: str) -> None:
        """Drop kept parameters now; nothing happens when there are none."""
        if self._caller is not None:
            raw = self._replay.execute_command("HGET", keys.adapted(adaptation_id), "info")
            if raw is None or self.visible(json.loads(raw)) is None:
                return
        where = [keys.adapted(adaptation_id), keys.ADAPTED, keys.ADAPTED_BOOKS, keys.reply(adaptation_id)]
        _forget(self._replay, where, [])

    def books(self) -> dict[str, int]:
        """`bytes` of all that is kept (what expired since the last change included), and how many were `dropped`."""
        found = self._replay.execute_command("HMGET", keys.ADAPTED_BOOKS, "bytes", "dropped")
        return {"bytes": int(found[0] or 0), "dropped": int(found[1] or 0)}

    def keeping(self, adaptation_id: str, kept: Kept, content: str) -> tuple[list[str], list[Arg]]:
        """The keys and arguments of `_keep.lua`, for scripts that keep among other things."""
        where = [keys.adapted(adaptation_id), keys.ADAPTED, keys.ADAPTED_BOOKS, keys.same(content) if content else ""]
        ttl_ms = max(1, round(self._ttl_s * 1000))
        life: list[Arg] = [ttl_ms, self._budget_bytes, keys.adapted(""), max(keys.BOOKS_TTL_S, ttl_ms // 1000)]
        return where, [json.dumps(kept.info), kept.blob, *life]
