"""Trained models: versions, facts, bytes."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from service import keys
from service.connection import Connections
from service.listing import PAGE_MOST, Wanted, page, pairs
from service.metadata import change_metadata
from service.scripts import Arg, Script
from service.tenancy import DEFAULT_TENANT, Caller, full_name, split_name
from service.trips import Trips
from warploom.errors import InvalidInput, NotFound
from warploom.records import Model, Page
from warploom.spec import ALIAS_PATTERN, NAME_PATTERN

LATEST = "latest"
_register = Script("register_model")
_alias = Script("alias")
_find = Script("find_model")


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
        """One version.

        Args:
            name: plain, or with an alias or a version: `sine@stable`, `sine@3`.
            version: default what the name says, else the alias `latest`.

        Raises:
            NotFound: no such model, version or alias.
            InvalidInput: the name says one version and `version` another.
        """
        return _found(name, _find(self._state, *self._sought(name, version)))

    async def look_up(self, state: Trips, name: str, version: int | None = None) -> Model:
        """As `get`, on an event loop."""
        return _found(name, await state.script(_find, *self._sought(name, version)))

    def _read(self, full: str, version: int) -> Model:
        return _found(full, _find(self._state, [keys.model(full)], [version, LATEST]))

    def _sought(self, name: str, version: int | None) -> tuple[list[str], list[Arg]]:
        plain, _, which = name.partition("@")
        if which and version is not None and str(version) != which:
            raise InvalidInput(
                f"{name!r} and version {version} are two answers", field="version", rule="one of them", value=version
            )
        if version is None and which.isdecimal():
            version = int(which[:18])
        return [keys.model(self.full_name(plain))], ["" if version is None else version, which or LATEST]

    def aliases(self, name: str) -> dict[str, int]:
        """The versions that the model's aliases stand for; `latest` is always there.

        Raises:
            NotFound: no such model.
        """
        latest, stored = self._state.execute_command("HMGET", keys.model(self.full_name(name)), "latest", "aliases")
        if latest is None:
            raise _missing(name, None)
        return {LATEST: int(latest), **json.loads(stored or "{}")}

    def point(self, name: str, alias: str, version: int | None) -> None:
        """Move an alias to a version, or forget it (None); a repeat changes nothing.

        `latest` stands for the newest version unless it was moved; the next registration moves it on.

        Raises:
            NotFound: no such model or version.
            InvalidInput: an alias that breaks the pattern.
        """
        if not re.fullmatch(ALIAS_PATTERN, alias):
            raise InvalidInput(f"bad alias {alias!r}", field="alias", rule=ALIAS_PATTERN, value=alias)
        told = "" if version is None else version
        if _alias(self._state, [keys.model(self.full_name(name))], [alias, told])[0] != b"ok":
            raise _missing(name, version)

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

    def versions(self, name: str, after: int = 0, limit: int = PAGE_MOST) -> Page[Model]:
        """Versions of one model, oldest first.

        Raises:
            NotFound: no such model.
        """
        full = self.full_name(name)
        latest = int(self._state.execute_command("HGET", keys.model(full), "latest") or 0)
        if not latest:
            raise _missing(name, None)
        last = min(after + limit, latest)
        return Page[Model](data=[self._read(full, n) for n in range(after + 1, last + 1)], has_more=last < latest)

    def blob(self, name: str, version: int) -> bytes:
        """The encoded model.

        Raises:
            NotFound: no such model or version.
        """
        blob = self._state.get_large(keys.model_blob(self.full_name(name), version))
        if blob is None:
            raise _missing(name, version)
        return blob


def _found(name: str, reply: Sequence[Any]) -> Model:
    """The model in the reply of `find_model.lua`."""
    plain, _, which = name.partition("@")
    version, raw, metadata, aliases, latest = reply
    number = int(version)
    if number == -1:
        raise NotFound(
            f"model {split_name(plain)[1]!r} has no alias {which!r}", field="alias", rule="a known alias", value=which
        )
    if raw is None:
        raise _missing(split_name(plain)[1], number)
    return _parsed(number, raw, metadata, aliases, latest)


@lru_cache(maxsize=256)
def _parsed(version: int, raw: bytes, metadata: bytes | None, aliases: bytes | None, latest: bytes) -> Model:
    known = {LATEST: int(latest), **json.loads(aliases or "{}")}
    held = sorted(alias for alias, pointed in known.items() if pointed == version)
    more = {"version": version, "metadata": pairs(metadata.decode() if metadata else None), "aliases": held}
    return Model.model_validate({**json.loads(raw), **more})


def _missing(name: str, version: int | None) -> NotFound:
    what = f"model {name!r}" + (f" version {version}" if version else "")
    return NotFound(f"no {what}", field="model", rule="a registered model", value=name)
