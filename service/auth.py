"""API keys: made, shown once, stored hashed, rotated, revoked.

A key is `wlk_<id>_<secret>`: the id finds the record, the secret has 256 random bits. Such a secret cannot be guessed
with or without its hash, so SHA-256 is enough, and it costs every request a microsecond; slow hashes (scrypt, Argon2)
are for passwords, which people choose. The operator's own key (`Settings.api_key`) may be any text; it belongs to the
first key's record.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from service import ids, keys
from service.connection import Connections
from service.identity import FIRST, TOKEN, caller_of, check_end, digest, lookup
from service.lifecycle import Clock, Fields, as_fields, clock_arg, seconds
from service.limits import check_own
from service.scripts import Script
from service.tenancy import DEFAULT_TENANT, SCOPES, TENANT_PATTERN, Caller
from warploom.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from warploom.records import ApiKey, NewApiKey, Page

PREFIX = "wlk_"
SHORTEST = 16
LONGEST_GRACE_S = 30 * 86400
SHOWN = 12  # characters of a key that are no secret and tell people which it is

_create = Script("key_create")
_change = Script("key_change")


class KeyRing:
    """All API keys, on the state server.

    Args:
        connections: both Redis roles.
        clock: seconds since the epoch, for tests; default: the state server's own clock.
        caller: the admin in whose name keys are managed; None, or one of the default tenant, manages all of them.
    """

    def __init__(self, connections: Connections, *, clock: Clock | None = None, caller: Caller | None = None) -> None:
        self._state = connections.state
        self._clock = clock
        self._caller = caller

    def ensure_first(self, given: str | None = None) -> str | None:
        """See to it that there is a key: an admin of the default tenant.

        Args:
            given: the operator's own key; it replaces the first one, also when that was revoked.

        Returns:
            A new key `wlk_…` when this call made one (it can never be read again), else None.

        Raises:
            InvalidInput: the given key is shorter than 16 characters.
        """
        if given is not None and len(given) < SHORTEST:
            rule = f"at least {SHORTEST} characters"
            raise InvalidInput("the given API key is too short", field="api_key", rule=rule)
        made = given or _token(FIRST)
        facts = {"name": "first", "tenant": DEFAULT_TENANT, "scopes": " ".join(SCOPES), **_told_apart(made)}
        # One script decides which of two processes that start together makes the key.
        new = self._store(FIRST, facts, replace=given is not None)
        return made if new and given is None else None

    def _store(self, key_id: str, facts: Mapping[str, str], *, replace: bool = False) -> bool:
        fields = [part for pair in facts.items() for part in pair]
        where, now = [keys.api_key(key_id), keys.KEYS], clock_arg(self._clock)
        return bool(_create(self._state, where, [now, key_id, str(int(replace)), *fields]))

    def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Sequence[str] = SCOPES[:3],
        expires_at: float | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> NewApiKey:
        """A new key; its secret is in this answer and nowhere else.

        Args:
            name: what it is for.
            tenant: that it belongs to; default: the caller's.
            scopes: what it may do.
            expires_at: seconds since the epoch.
            limits: its own limits by name, in place of the service's.

        Raises:
            NotFound: the caller may not make keys for this tenant.
            InvalidInput: a name, tenant or scope that breaks its rule, or an end in the past.
        """
        home = self._caller.tenant if self._caller else DEFAULT_TENANT
        tenant = tenant or home
        self._check_new(tenant, scopes, expires_at)
        check_own(limits or {})
        key_id = ids.new_id("key")
        secret = _token(key_id)
        facts = {
            "name": name,
            "tenant": tenant,
            "scopes": " ".join(scope for scope in SCOPES if scope in scopes),
            "created_by": self._caller.key if self._caller else "",
            "limits": json.dumps(dict(limits or {})),
            **({"expires_at": str(round(expires_at * 1000))} if expires_at is not None else {}),
            **_told_apart(secret),
        }
        self._store(key_id, facts)
        return NewApiKey(**self.get(key_id).model_dump(), secret=secret)

    def _check_new(self, tenant: str, scopes: Sequence[str], expires_at: float | None) -> None:
        if not re.fullmatch(TENANT_PATTERN, tenant):
            raise InvalidInput(f"/tenant: bad name {tenant!r}", field="/tenant", rule=TENANT_PATTERN, value=tenant)
        if not self._manages(tenant):
            rule = "your own tenant"
            raise NotFound(f"/tenant: no tenant {tenant!r}", field="/tenant", rule=rule, value=tenant)
        _check_scopes(scopes)
        if expires_at is not None and expires_at <= self._now_ms() / 1000:
            rule = "a time in the future, in seconds since the epoch"
            raise InvalidInput(f"/expires_at: must be {rule}", field="/expires_at", rule=rule, value=expires_at)

    def _manages(self, tenant: str) -> bool:
        return self._caller is None or self._caller.operator or self._caller.tenant == tenant

    def get(self, key_id: str) -> ApiKey:
        """One key's record.

        Raises:
            NotFound: no such key, or another tenant's.
        """
        return _as_key(self._read(key_id))

    def _read(self, key_id: str) -> Fields:
        known = ids.is_id("key", key_id)
        fields = as_fields(self._state.execute_command("HGETALL", keys.api_key(key_id))) if known else {}
        if not fields or not self._manages(fields["tenant"]):
            raise NotFound(f"no key {key_id!r}", field="/id", rule="an existing key", value=key_id)
        return fields

    def list(self, limit: int = 20, after: str | None = None) -> Page[ApiKey]:
        """Keys, newest first.

        Args:
            limit: most keys on the page.
            after: id of the last key of the page before.

        Raises:
            InvalidInput: `after` is no key id.
        """
        if after is not None and not ids.is_id("key", after):
            raise InvalidInput(f"no key id: {after!r}", field="after", rule="a key id", value=after)
        found: list[ApiKey] = []
        top = f"({after}" if after else "+"
        while len(found) <= limit:
            batch = self._state.execute_command("ZREVRANGEBYLEX", keys.KEYS, top, "-", "LIMIT", 0, limit + 1)
            for key_id in batch:
                fields = as_fields(self._state.execute_command("HGETALL", keys.api_key(key_id.decode())))
                found += [_as_key(fields)] if self._manages(fields["tenant"]) else []
            if len(batch) <= limit:
                break
            top = f"({batch[-1].decode()}"
        return Page[ApiKey](data=found[:limit], has_more=len(found) > limit)

    def rotate(self, key_id: str, grace_s: float) -> NewApiKey:
        """A new secret for the key; the old one works for `grace_s` more seconds.

        Raises:
            NotFound: no such key.
            Conflict: it is revoked.
            InvalidInput: the grace time is not 0 s to 30 days.
        """
        if not 0 <= grace_s <= LONGEST_GRACE_S:
            rule = f"0 to {LONGEST_GRACE_S}"
            raise InvalidInput(f"/grace_s: must be {rule}", field="/grace_s", rule=rule, value=grace_s)
        self._read(key_id)
        secret = _token(key_id)
        told = _told_apart(secret)
        self._changed(key_id, "rotate", told["digest"], told["shown"], round(grace_s * 1000))
        return NewApiKey(**self.get(key_id).model_dump(), secret=secret)

    def change(
        self,
        key_id: str,
        *,
        name: str | None = None,
        scopes: Sequence[str] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> ApiKey:
        """Change what is given; it holds from the next request on. The secret, the tenant and the end stay.

        Args:
            key_id: the key.
            name: what it is for.
            scopes: all that it may do.
            limits: all of its own limits; empty: the service's alone.

        Raises:
            NotFound: no such key.
            Conflict: it is revoked, or an admin would take `admin` from the key in use.
            InvalidInput: a scope or a limit that breaks its rule.
        """
        told = {} if name is None else {"name": name}
        if scopes is not None:
            _check_scopes(scopes)
            if self._caller is not None and self._caller.key == key_id and "admin" not in scopes:
                rule = "with admin, when it is the key in use"
                message = "/scopes: a key does not take admin from itself; another admin's key can"
                raise Conflict(message, field="/scopes", rule=rule, value=" ".join(scopes))
            told["scopes"] = " ".join(scope for scope in SCOPES if scope in scopes)
        if limits is not None:
            check_own(limits)
            told["limits"] = json.dumps(dict(limits))
        self._read(key_id)
        if told:
            self._changed(key_id, "change", *(part for pair in told.items() for part in pair))
        return self.get(key_id)

    def revoke(self, key_id: str) -> ApiKey:
        """Have the key open nothing any more, from now on; a repeat changes nothing.

        Raises:
            NotFound: no such key.
        """
        self._read(key_id)
        self._changed(key_id, "revoke")
        return self.get(key_id)

    def _changed(self, key_id: str, action: str, *what: str | int) -> None:
        if _change(self._state, [keys.api_key(key_id)], [clock_arg(self._clock), action, *what]) == b"revoked":
            raise Conflict(f"key {key_id} is revoked", field="revoked_at", rule="a key that is not revoked")

    def check(self, presented: str) -> bool:
        """Whether this key opens anything."""
        try:
            self.identify(presented)
        except Unauthenticated:
            return False
        return True

    def identify(self, presented: str) -> Caller:
        """Who presents this key.

        Raises:
            Unauthenticated: unknown, revoked or expired.
        """
        caller, end = caller_of(presented, self._state.execute_command(*lookup(presented)))
        if end is not None:
            check_end(caller.key, end, self._now_ms())
        return caller

    def _now_ms(self) -> int:
        return round(self._clock() * 1000) if self._clock else self._state.now_ms()


def _check_scopes(scopes: Sequence[str]) -> None:
    bad = [scope for scope in scopes if scope not in SCOPES]
    if bad or not scopes:
        rule = f"one or more of {', '.join(SCOPES)}"
        raise InvalidInput(f"/scopes: must be {rule}", field="/scopes", rule=rule, value=bad[0] if bad else None)


def _token(key_id: str) -> str:
    return f"{PREFIX}{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"


def _told_apart(token: str) -> dict[str, str]:
    """What is stored of a key: its hash, and the beginning that is no secret."""
    shown = f"{token[: SHOWN + len(PREFIX)]}…" if TOKEN.fullmatch(token) else ""
    return {"digest": digest(token), "shown": shown}


def _as_key(fields: Fields) -> ApiKey:
    told: dict[str, Any] = {name: fields.get(name) or None for name in ("created_by", "shown")}
    told |= {
        name: seconds(fields.get(name))
        for name in ("created_at", "used_at", "expires_at", "revoked_at", "rotated_at", "old_until")
    }
    limits = json.loads(fields.get("limits", "{}"))
    return ApiKey(
        id=fields["id"],
        name=fields["name"],
        tenant=fields["tenant"],
        scopes=fields["scopes"].split(),
        limits=limits,
        **told,
    )
