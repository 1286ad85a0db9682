"""Whose key a request carries: what is asked of the state server, and what the reply says."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence

from service import keys
from service.tenancy import Caller
from service.trips import Trips
from warploom.errors import Unauthenticated

# The first key: made at the first start, or given by the operator.
FIRST = "key_" + "0" * 20
HEADER = "/headers/authorization"
TOKEN = re.compile(r"wlk_([0-9a-z]{20})_[A-Za-z0-9_-]{43}")
_LOOKED_UP = (
    "id", "digest", "old_digest", "tenant", "scopes", "limits", "revoked_at", "expires_at", "old_until",
)  # fmt: skip


async def identified(presented: str, state: Trips) -> Caller:
    """Who presents this key, by the state server's clock.

    Raises:
        Unauthenticated: unknown, revoked or expired.
    """
    caller, end = caller_of(presented, await state.run(*lookup(presented)))
    if end is not None:
        seconds, micros = await state.run("TIME")
        check_end(caller.key, end, int(seconds) * 1000 + int(micros) // 1000)
    return caller


def lookup(presented: str) -> tuple[str, ...]:
    """The command whose reply `caller_of` reads."""
    match = TOKEN.fullmatch(presented)
    return ("HMGET", keys.api_key(f"key_{match[1]}" if match else FIRST), *_LOOKED_UP)


def caller_of(presented: str, stored: Sequence[bytes | None]) -> tuple[Caller, int | None]:
    """Who presents a key, and the time (ms) from which on it opens nothing; None: it has no end.

    Takes a time that does not depend on how much of the secret fits.

    Raises:
        Unauthenticated: unknown or revoked.
    """
    told = {name: (value or b"").decode() for name, value in zip(_LOOKED_UP, stored, strict=True)}
    found = digest(presented)
    current = hmac.compare_digest(told["digest"], found)
    before = hmac.compare_digest(told["old_digest"], found)
    if not (current or before):
        raise Unauthenticated("this API key is not known", field=HEADER, rule="Bearer <a known key>")
    # Whoever knows the secret may know what became of it.
    if told["revoked_at"]:
        raise Unauthenticated(f"key {told['id']} is revoked", field=HEADER, rule="not revoked", value=told["id"])
    ends = [told["expires_at"], "" if current else told["old_until"]]
    limits = json.loads(told["limits"] or "{}")
    caller = Caller(told["id"], told["tenant"], frozenset(told["scopes"].split()), limits)
    return caller, min((int(end) for end in ends if end), default=None)


def check_end(key_id: str, end_ms: int, now_ms: int) -> None:
    """Refuse a key whose end has come. Raises Unauthenticated."""
    if end_ms <= now_ms:
        raise Unauthenticated(f"key {key_id} has expired", field=HEADER, rule="not expired", value=key_id)


def digest(key: str) -> str:
    """What is stored of a key in place of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
