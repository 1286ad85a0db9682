"""One example for each call that has a body, and for each part of a path, in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

_JOB = {
    "name": "sine",
    "metadata": {"team": "research"},
    "algorithm": {"name": "warpgrad", "inner_lr": 0.01, "inner_steps": 10},
    "task": {"name": "sinusoid", "shots": 10},
    "model": {"name": "warp_mlp", "hidden": [40, 40]},
    "training": {"rounds": 200, "meta_batch": 8, "unit": 4, "rollouts": 2},
    "evaluation": {"every": 20, "tasks": 20},
}
_RATE = {"type": "loguniform", "low": 0.001, "high": 0.1}
_SUPPORT = {"x": [[-1.0], [0.0], [1.0]], "y": [[-0.84], [0.0], [0.84]]}
_NOTES = {"metadata": {"team": "research", "draft": None}}
BODIES: dict[str, Any] = {
    "jobs_submit": _JOB,
    "jobs_note": _NOTES,
    "sweeps_submit": {"job": _JOB, "space": {"algorithm.inner_lr": _RATE}, "metric": "loss", "num_samples": 8},
    "sweeps_note": _NOTES,
    "sweeps_promote": {"name": "sine", "alias": "stable"},
    "models_note": _NOTES,
    "models_point": {"version": 2},
    "adaptations_adapt": {"support": _SUPPORT, "query": {"x": [[0.5]]}, "steps": 5},
    "adaptations_predict": {"query": {"x": [[0.5]]}},
    "webhooks_create": {"url": "https://example.com/warploom", "events": ["job.succeeded", "job.failed"]},
    "webhooks_change": {"events": ["job.failed"]},
    "webhooks_rotate": {"grace_s": 86400},
    "keys_create": {"name": "nightly", "scopes": ["jobs:read", "jobs:write"]},
    "keys_change": {"scopes": ["jobs:read"], "limits": {"jobs": 2}},
    "keys_rotate": {"grace_s": 3600},
}
PARTS: dict[str, Any] = {
    "job_id": "job_1k0rrnc71ypths1724jm",
    "sweep_id": "sweep_1k0rrnc8mx9r23z7dekn",
    "adaptation_id": "adapt_1k0rrnc94587jhh67b1d",
    "webhook_id": "hook_1k0rrnc94587jhh67b1d",
    "key_id": "key_1k0rrnc94587jhh67b1d",
    "name": "sine",
    "version": 2,
    "alias": "stable",
    "step": 40,
}


def install(app: FastAPI, add_answers: Callable[[dict[str, Any]], None]) -> None:
    """Have the document of `app` carry the examples.

    Args:
        app: with all its routes.
        add_answers: adds those of an operation's answers (`api.answers`).
    """
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            for item in document["paths"].values():
                for operation in item.values():
                    _add(operation)
                    add_answers(operation)
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def _add(operation: dict[str, Any]) -> None:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and operation["operationId"] in BODIES:
        body["example"] = BODIES[operation["operationId"]]
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path" and parameter["name"] in PARTS:
            parameter["example"] = PARTS[parameter["name"]]
