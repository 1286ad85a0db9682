"""Trained models: versions, facts, bytes."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
import time
from typing import Any

from service import keys
from service.connection import Connections
from service.scripts import Script
from warploom.errors import InvalidInput, NotFound
from warploom.records import Model
from warploom.spec import NAME_PATTERN

_register = Script("register_model")


class ModelStore:
    """Registered models; their blobs live on the state server."""

    def __init__(self, connections: Connections) -> None:
        self._state = connections.state

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
            sweep: the sweep that made it.
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
        where = [keys.MODELS, keys.model(name)]
        version = int(_register(self._state, where, [name, once, json.dumps(facts), blob, f"{keys.model(name)}:"]))
        return self.get(name, version)

    def get(self, name: str, version: int | None = None) -> Model:
        """One version, the latest by default.

        Raises:
            NotFound: no such model or version.
        """
        if version is None:
            version = int(self._state.execute_command("HGET", keys.model(name), "latest") or 0)
        raw = self._state.execute_command("HGET", keys.model(name), f"v:{version}")
        if raw is None:
            raise _missing(name, version)
        return Model.model_validate({**json.loads(raw), "version": version})

    def list(self) -> list[Model]:
        """The latest version of every model, by name."""
        names = self._state.execute_command("ZRANGE", keys.MODELS, 0, -1)
        return [self.get(name.decode()) for name in names]

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
        blob = self._state.get_large(keys.model_blob(name, version))
        if blob is None:
            raise _missing(name, version)
        return blob


def _missing(name: str, version: int) -> NotFound:
    what = f"model {name!r}" + (f" version {version}" if version else "")
    return NotFound(f"no {what}", field="model", rule="a registered model", value=name)
