"""Trained models, kept ready for as long as there is room."""

from __future__ import annotations

from collections import OrderedDict

from service.models import ModelStore
from warploom.adaptation import ServedModel


class WarmModels:
    """The models used last, within a budget of bytes; the one in use stays, however large.

    Args:
        models: where they come from.
        budget_bytes: of their encoded forms.
    """

    def __init__(self, models: ModelStore, budget_bytes: int) -> None:
        self._models, self._budget_bytes = models, budget_bytes
        self._ready: OrderedDict[tuple[str, int], tuple[ServedModel, int]] = OrderedDict()

    def get(self, name: str, version: int) -> ServedModel:
        """A version of a model.

        Raises:
            NotFound: there is no such model or version.
        """
        key = (name, version)
        if key not in self._ready:
            blob = self._models.blob(name, version)
            self._ready[key] = ServedModel.load(blob), len(blob)
            while len(self._ready) > 1 and sum(size for _, size in self._ready.values()) > self._budget_bytes:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return self._ready[key][0]

    def names(self) -> list[tuple[str, int]]:
        """What is ready, least recently used first."""
        return list(self._ready)
