"""What can be asked about the service itself."""

from __future__ import annotations

from typing import Any

from warploom.client.calls import Call, get, plain
from warploom.records import Catalog


def catalog() -> Call[Catalog]:
    """All algorithms, task families and models that the service knows."""
    return get("/v1/catalog", Catalog)


def limits() -> Call[dict[str, Any]]:
    """The service's limits."""
    return plain("/v1/limits")


def health() -> Call[dict[str, Any]]:
    """Which parts of the service are up. Raises Unavailable when it is not ready to work."""
    return plain("/readyz")


def version() -> Call[dict[str, Any]]:
    """The service's version."""
    return plain("/version")
