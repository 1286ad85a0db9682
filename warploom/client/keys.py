"""What can be asked about API keys. All but `whoami` and `usage` need a key of scope admin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from warploom.client.calls import Call, get, given, part, patch, post
from warploom.client.core import Core
from warploom.records import ApiKey, AuditEntry, Identity, NewApiKey, Page, UsageDay


def whoami() -> Call[Identity]:
    """Whose key this client uses: its name, tenant and scopes."""
    return get("/v1/whoami", Identity)


async def usage(core: Core, days: int = 30, key: str | None = None) -> list[UsageDay]:
    """What a key used by day (UTC), today first; days without any are left out.

    Args:
        days: how many days back, today included.
        key: id of another key, for admins; default: the one in use.
    """
    return (await core.do(get("/v1/usage", Page[UsageDay], days=days, key=key))).data


def audit(limit: int = 100, after: str | None = None) -> Call[Page[AuditEntry]]:
    """Calls that changed something or were refused, newest first."""
    return get("/v1/audit", Page[AuditEntry], limit=limit, after=after)


def listing(limit: int = 20, after: str | None = None) -> Call[Page[ApiKey]]:
    """Keys, newest first, also revoked ones; never their secrets."""
    return get("/v1/keys", Page[ApiKey], limit=limit, after=after)


def one(id: str) -> Call[ApiKey]:
    """What is known of one key."""
    return get(f"/v1/keys/{part(id)}", ApiKey)


def create(
    name: str,
    scopes: Sequence[str] | None = None,
    tenant: str | None = None,
    expires_at: float | None = None,
    limits: Mapping[str, int] | None = None,
) -> Call[NewApiKey]:
    """Make a key. Its `secret` is in the answer and can never be read again.

    Args:
        name: what it is for.
        scopes: what it may do (`jobs:read`, `jobs:write`, `adapt`, `admin`); default: all but admin.
        tenant: whose objects it sees; default: your own.
        expires_at: seconds since the epoch; default: never.
        limits: in place of the service's, by the names that `limits` tells.
    """
    wanted, own = None if scopes is None else list(scopes), None if limits is None else dict(limits)
    body = given(name=name, scopes=wanted, tenant=tenant, expires_at=expires_at, limits=own)
    return post("/v1/keys", NewApiKey, json=body)


def update(
    id: str,
    name: str | None = None,
    scopes: Sequence[str] | None = None,
    limits: Mapping[str, int] | None = None,
) -> Call[ApiKey]:
    """Change what is given, from the key's next request on; scopes and limits whole, so that `{}` takes all limits."""
    wanted, own = None if scopes is None else list(scopes), None if limits is None else dict(limits)
    return patch(f"/v1/keys/{part(id)}", ApiKey, given(name=name, scopes=wanted, limits=own))


def rotate(id: str, grace_s: float | None = None) -> Call[NewApiKey]:
    """A new secret for a key; the old one works for `grace_s` more seconds."""
    return post(f"/v1/keys/{part(id)}/rotate", NewApiKey, json=given(grace_s=grace_s))


def revoke(id: str) -> Call[ApiKey]:
    """Have a key open nothing any more, at once; a repeat changes nothing."""
    return post(f"/v1/keys/{part(id)}/revoke", ApiKey, safe=True)
