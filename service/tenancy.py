"""On whose behalf a store works.

A tenant owns jobs, sweeps, models and adaptations; an API key belongs to one tenant. A store that is given a caller
sees that caller's tenant alone: all else is missing, in every method. Without a caller (workers) it sees everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_TENANT = "default"
TENANT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
JOBS_READ, JOBS_WRITE, ADAPT, ADMIN = "jobs:read", "jobs:write", "adapt", "admin"
SCOPES = (JOBS_READ, JOBS_WRITE, ADAPT, ADMIN)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        key: id of the API key.
        tenant: that the key belongs to.
        scopes: what it may do (`SCOPES`).
        limits: its own limits, by name; the others are the service's.
    """

    key: str
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset(SCOPES)
    limits: dict[str, int] = field(default_factory=dict, hash=False)

    @property
    def operator(self) -> bool:
        """Whether this is an admin of the default tenant, who manages the keys of all tenants."""
        return self.tenant == DEFAULT_TENANT and ADMIN in self.scopes


def full_name(tenant: str, name: str) -> str:
    """A model's name among those of all tenants; as in the default tenant it is the plain one.

    Example:
        >>> full_name("default", "sine"), full_name("acme", "sine")
        ('sine', 'acme/sine')
    """
    return name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"


def split_name(full: str) -> tuple[str, str]:
    """The tenant and the plain name of a full name.

    Example:
        >>> split_name("sine"), split_name("acme/sine")
        (('default', 'sine'), ('acme', 'sine'))
    """
    tenant, slash, name = full.rpartition("/")
    return (tenant, name) if slash else (DEFAULT_TENANT, full)
