"""Trained models: versions, facts, bytes."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from service import keys
from service.connection import Connections
from service.listing import PAGE_MOST, Wanted, page, pairs
from service.metadata import change_metadata
from service.scripts import Script
from service.tenancy import DEFAULT_TENANT, Caller, full_name, split_name
from warploom.errors import InvalidInput, NotFound
from warploom.records import Model, Page
from warploom.spec import NAME_PATTERN

_register = Script("register_model")


class ModelStore:
    """Registered models; their blobs live on the state server.

    Args:
        connections: both Redis roles.
        caller: whose they are. Without one, a name is a full name (see `service.tenancy.full_name`).
    """

    def __init__(self, connections: Connections, *, caller: Caller | None = None) -> None:
        self._state = connections.state
        self._caller = caller

    def register(
        self,
        name: str,
        blob: bytes,
        *,
        kind: str,
        input_shape: list[int],
        outputs: int,
        parameters: int,
        default_steps: int,
        default_lr: float,
        metrics: dict[str, float],
        spec: dict[str, Any],
        job: str | None = None,
        sweep: str | None = None,
        once: str,
    ) -> Model:
        """A new version (1, 2, …) of the model `name`.

        Args:
            name: as in `warploom.spec.NAME_PATTERN`.
            blob: the encoded model.
            kind: classification or regression.
            input_shape: of one example.
            outputs: classes or targets.
            parameters: number of scalars.
            default_steps: adaptation steps when a request names none.
            default_lr: adaptation rate when a request names none.
            metrics: of the last evaluation.
            spec: the complete job spec.
            job: the job that made it.
            sweep: the sweep that made it; the model belongs to the tenant of the one or the other.
            once: idempotency token (a job id, say): a second call with it gives the first call's version.

        Raises:
            InvalidInput: a name that breaks the pattern.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise InvalidInput(f"bad model name {name!r}", field="name", rule=NAME_PATTERN, value=name)
        facts = {
            "name": name,
            "created_at": time.time(),
            "job": job,
            "sweep": sweep,
            "kind": kind,
            "input_shape": input_shape,
            "outputs": outputs,
            "parameters": parameters,
            "bytes": len(blob),
            "sha256": hashlib.sha256(blob).hexdigest(),
            "default_steps": default_steps,
            "default_lr": default_lr,
            "metrics": metrics,
            "spec": spec,
        }
        tenant = self._tenant(job or sweep)
        full = full_name(tenant, name)
        where = [keys.models(tenant), keys.model(full)]
        version = int(_register(self._state, where, [name, once, json.dumps(facts), blob, f"{keys.model(full)}:"]))
        return self._read(full, version)

    def _tenant(self, origin: str | None) -> str:
        if self._caller is not None:
            return self._caller.tenant
        stored = self._state.execute_command("HGET", keys.record(origin), "tenant") if origin else None
        return stored.decode() if stored else DEFAULT_TENANT

    def full_name(self, name: str) -> str:
        """The name that is unique among all tenants.

        Raises:
            NotFound: the caller names another tenant's model.
        """
        if self._caller is None:
            return name
        if "/" in name:
            raise _missing(name, None)
        return full_name(self._caller.tenant, name)

    def get(self, name: str, version: int | None = None) -> Model:
        """One version, the latest by default.

        Raises:
            NotFound: no such model or version.
        """
        return self._read(self.full_name(name), version)

    def _read(self, full: str, version: int | None) -> Model:
        if version is None:
            version = int(self._state.execute_command("HGET", keys.model(full), "latest") or 0)
        raw, metadata = self._state.execute_command("HMGET", keys.model(full), f"v:{version}", "metadata")
        if raw is None:
            raise _missing(split_name(full)[1], version)
        return Model.model_validate({**json.loads(raw), "version": version, "metadata": pairs(metadata)})

    def list(self, wanted: Wanted | None = None) -> Page[Model]:
        """The latest version of every model of the caller's tenant (without one: of the default tenant), by name."""
        tenant = self._caller.tenant if self._caller else DEFAULT_TENANT
        wanted = wanted or Wanted(limit=PAGE_MOST, order="asc")

        def fits(model: Model) -> bool:
            return wanted.fits(created_at=model.created_at, metadata=model.metadata)

        index = keys.models(tenant)
        found, more = page(self._state, index, wanted, lambda names: [self.get(name) for name in names], fits)
        return Page[Model](data=found, has_more=more)

    def note(self, name: str, changes: Mapping[str, str | None]) -> Model:
        """Change the model's metadata: pairs to set, and names to remove (None).

        Raises:
            NotFound: no such model.
            InvalidInput: there would be too many pairs.
        """
        if not change_metadata(self._state, keys.model(self.full_name(name)), changes):
            raise _missing(name, 0)
        return self.get(name)

    def versions(self, name: str) -> builtins.list[Model]:
        """All versions of one model, oldest first.

        Raises:
            NotFound: no such model.
        """
        return [self.get(name, version) for version in range(1, self.get(name).version + 1)]

    def blob(self, name: str, version: int) -> bytes:
        """The encoded model.

        Raises:
            NotFound: no such model or version.
        """
        blob = self._state.get_large(keys.model_blob(self.full_name(name), version))
        if blob is None:
            raise _missing(name, version)
        return blob


def _missing(name: str, version: int | None) -> NotFound:
    what = f"model {name!r}" + (f" version {version}" if version else "")
    return NotFound(f"no {what}", field="model", rule="a registered model", value=name)
