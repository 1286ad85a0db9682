"""One example of each answer in the OpenAPI document, by the name of its schema, or of the call where it has none."""

from __future__ import annotations

from typing import Any

from api.examples import BODIES, PARTS

_AT = 1767225600.0
_TENANT = {"tenant": "default"}
_METADATA = {"team": "research"}
_PENDING = {"id": PARTS["adaptation_id"], "state": "pending", "retry_in_seconds": 1.0}
_TRANSITIONS = [{"state": "queued", "at": _AT, "phase": None}, {"state": "running", "at": _AT + 2, "phase": None}]
_SPEC = {name: value for name, value in BODIES["jobs_submit"].items() if name != "metadata"}
_METRICS = {"loss": 0.21, "loss_ci95": 0.03}
_JOB = {
    "id": PARTS["job_id"],
    "name": "sine",
    **_TENANT,
    "state": "running",
    "phase": "training",
    "spec": _SPEC,
    "created_at": _AT,
    "started_at": _AT + 2,
    "generation": 1,
    "progress": {"meta_step": 40, "total": 200, "tasks_done": 320, "seconds_remaining": 96.0, "metrics": _METRICS},
    "transitions": _TRANSITIONS,
    "metadata": _METADATA,
}
_SWEEP = {
    "id": PARTS["sweep_id"],
    "name": "sine-swept",
    **_TENANT,
    "state": "running",
    "spec": BODIES["sweeps_submit"],
    "created_at": _AT,
    "started_at": _AT + 2,
    "generation": 1,
    "trials": [
        {
            "id": "00000",
            "state": "running",
            "parameters": {"algorithm.inner_lr": 0.031},
            "curve": [{"meta_step": 0.0, "loss": 3.1}, {"meta_step": 20.0, "loss": 0.9}],
            "best": 0.9,
        }
    ],
    "transitions": _TRANSITIONS,
    "metadata": {},
}
_MODEL = {
    "name": "sine",
    "version": 2,
    "created_at": _AT,
    "job": PARTS["job_id"],
    "kind": "regression",
    "input_shape": [1],
    "outputs": 1,
    "parameters": 5041,
    "bytes": 21432,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "default_steps": 10,
    "default_lr": 0.01,
    "metrics": _METRICS,
    "spec": _SPEC,
    "metadata": _METADATA,
    "aliases": ["latest", "stable"],
}
_PREDICTION = {"labels": None, "confidence": None, "outputs": [[0.48]]}
_ADAPTATION = {
    "id": PARTS["adaptation_id"],
    "state": "ready",
    "model": "sine",
    "version": 2,
    "steps": 5,
    "lr": 0.01,
    "losses": [0.9, 0.4, 0.2, 0.12, 0.08, 0.05],
    "support_accuracy": None,
    "seed": 0,
    "warnings": ["3 examples; the model learned to adapt from 10"],
    "expires_at": _AT + 3600,
    "prediction": _PREDICTION,
}
_HOOK = {
    "id": PARTS["webhook_id"],
    **_TENANT,
    "url": "https://example.com/warploom",
    "events": ["job.succeeded", "job.failed"],
    "description": "",
    "created_at": _AT,
}
_DELIVERY = {
    "id": "msg_1k0rrnc94587jhh67b1d",
    "webhook": PARTS["webhook_id"],
    "event": "job.failed",
    "state": "delivered",
    "created_at": _AT,
    "attempts": [{"at": _AT + 1, "seconds": 0.2, "status": 204}],
}
_KEY = {
    "id": PARTS["key_id"],
    "name": "nightly",
    **_TENANT,
    "scopes": ["jobs:read", "jobs:write"],
    "shown": "wlk_1k0rrnc94587…",
    "limits": {"jobs": 2},
    "created_at": _AT,
}
_CHECKPOINT = {
    "id": "ckpt_1k0rrnc71ypths1724jm_40",
    "job": PARTS["job_id"],
    "step": 40,
    "created_at": _AT,
    "bytes": 21432,
    "sha256": _MODEL["sha256"],
    "metrics": _METRICS,
}
_EVENT = {"id": "1767225602000-0", "at": _AT + 2, "kind": "state", "data": {"state": "running", "generation": 1}}
_LINE = {"worker": "learner-0", "generation": 1, "level": "info", "message": "starts, generation 1"}
_ENTRY = {"name": "none", "summary": "No meta-learning", "source": "-", "options": {"type": "object"}}
_AUDIT = {"action": "POST /v1/jobs", "target": PARTS["job_id"], "status": 202, "request_id": "req_1", "address": "::1"}
_ESTIMATE = {
    "tasks": 1600,
    "inner_steps": 16000,
    "evaluations": 11,
    "evaluation_inner_steps": 2200,
    "parameters": 5041,
    "adapted_parameters": 1761,
    "meta_state_bytes": 20164,
    "learner_bytes": 60492,
    "trajectory_bytes": 90604,
    "replay_bytes": 724832,
    "replay_bytes_written": 144966400,
    "notes": [],
}
_SECRET = {"secret": "shown this once"}


def _page(*entries: Any) -> dict[str, Any]:
    return {"data": list(entries), "has_more": False}


BY_SCHEMA: dict[str, Any] = {
    "Job": _JOB,
    "Page_Job_": _page(_JOB),
    "DryRun": {"dry_run": True, "spec": _SPEC, "estimate": _ESTIMATE},
    "Lineage": {"job": PARTS["job_id"], "sent": _SPEC, "spec": _SPEC, "seed": 0, "versions": {"torch": "2.9.1"}},
    "Metrics": {"curves": {"support_loss": [[1, 0.9], [2, 0.7]], "held_out/loss": [[0, 3.1], [20, 0.9]]}},
    "Page_CheckpointInfo_": _page(_CHECKPOINT),
    "Page_Event_": _page(_EVENT),
    "Page_LogLine_": _page({"id": "1767225602000-0", "at": _AT + 2, **_LINE}),
    "Sweep": _SWEEP,
    "Page_Sweep_": _page(_SWEEP),
    "Model": _MODEL,
    "Page_Model_": _page(_MODEL),
    "Adaptation": _ADAPTATION,
    "PendingAdaptation": _PENDING,
    "Prediction": _PREDICTION,
    "Webhook": _HOOK,
    "NewWebhook": {**_HOOK, **_SECRET},
    "Page_Webhook_": _page(_HOOK),
    "Delivery": _DELIVERY,
    "Page_Delivery_": _page(_DELIVERY),
    "ApiKey": _KEY,
    "NewApiKey": {**_KEY, **_SECRET},
    "Page_ApiKey_": _page(_KEY),
    "Identity": {"key": PARTS["key_id"], "name": "nightly", **_TENANT, "scopes": ["jobs:read", "jobs:write"]},
    "Page_UsageDay_": _page({"date": "2026-01-01", "key": PARTS["key_id"], "requests": 120, "jobs": 2, "bytes": 60321}),
    "Page_AuditEntry_": _page({"id": "1767225600000-0", "at": _AT, "key": PARTS["key_id"], **_TENANT, **_AUDIT}),
    "Limits": {
        "max_body_bytes": 67108864,
        "max_steps": 1000,
        "max_support_rows": 20000,
        "adaptation_ttl_s": 3600,
        "adapt_wait_s": 60.0,
        "limits": {"requests_per_minute": {"limit": 60000, "used": 12, "reset_s": 0.1}},
    },
    "Catalog": {"algorithms": [_ENTRY], "tasks": [], "models": []},
}
BY_CALL: dict[str, Any] = {
    "adaptations_adapt 200": _ADAPTATION,
    "adaptations_adapt 202": _PENDING,
    "models_aliases 200": {"latest": 3, "stable": 2},
    "health_livez 200": {"status": "alive"},
    "health_version 200": {"version": "0.1.0"},
    "health_readyz 200": {
        "status": "ready",
        "parts": {"state_redis": "up", "replay_redis": "up", "supervisor": 1, "adapters": 1},
    },
}
STREAMS = {
    "events_events": "id: 1767225602000-0\nevent: state\ndata: {…}\n\n",
    "events_sweep_events": "id: 1767225602000-0\nevent: trial\ndata: {…}\n\n",
    "logs_logs": "id: 1767225602000-0\nevent: log\ndata: {…}\n\n",
    "adaptations_one": "event: adaptation\ndata: {…}\n\n",
}


def add(operation: dict[str, Any]) -> None:
    """Give every answer of an operation that says JSON or events its example."""
    called = operation["operationId"]
    for status, answer in operation["responses"].items():
        for media, content in answer.get("content", {}).items():
            if media == "application/json" and status.startswith("2"):
                name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                content["example"] = BY_SCHEMA[name] if name else BY_CALL[f"{called} {status}"]
            elif media == "text/event-stream":
                content["example"] = STREAMS[called]
