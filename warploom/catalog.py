"""The catalogue: every line of the tables with the schema of its options. Loads no torch."""

from __future__ import annotations

from warploom import registry
from warploom.configs import schema_of
from warploom.records import Catalog, CatalogEntry


def catalog() -> Catalog:
    """All algorithms, task families and models.

    Example:
        >>> "warpgrad" in [entry.name for entry in catalog().algorithms]
        True
    """
    return Catalog(algorithms=_shelf("algorithm"), tasks=_shelf("task"), models=_shelf("model"))


def _shelf(shelf: registry.Shelf) -> list[CatalogEntry]:
    entries = []
    for name in registry.TABLES[shelf]:
        config = registry.config_class(shelf, name)
        entries.append(CatalogEntry(name=name, summary=config.summary, source=config.source, options=schema_of(config)))
    return entries
