"""Hostile requests: bombs, traversal, injection, slow bodies. (Foreign ids and dead keys: test_tenancy, test_keys.)"""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from api.app import create_app
from service.connection import Connections
from service.observability import configure_logging
from service.settings import Settings
from tests.api.conftest import KEY, Api
from tests.api.test_errors import problem

NPZ = {"Content-Type": "application/x-npz"}
JSON = {"Content-Type": "application/json"}


class Exploit:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was read",)


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


BOMB = npz(support_x=npy(np.zeros(50_000_000, np.uint8)), support_y=npy(np.zeros(1)))
PICKLES = (npz(support_x=npy(np.array([Exploit()], object)), support_y=npy(np.zeros(1))), pickle.dumps(Exploit()))


@pytest.mark.parametrize("blob", [BOMB, *PICKLES], ids=["bomb", "pickle in npz", "pickle"])
def test_bombs_and_pickles_are_refused(client: Api, waves: str, blob: bytes) -> None:
    problem(client.post(f"/v1/models/{waves}/adapt", content=blob, headers=NPZ), 422, "corrupt_payload")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 30_000, b'{"support": {"x": ' + b"[" * 90_000])
def test_deep_json_is_refused(client: Api, waves: str, body: bytes) -> None:
    for path in (f"/v1/models/{waves}/adapt", "/v1/jobs", "/v1/keys"):
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code in (400, 422), answer.text


def test_json_with_too_many_parts_is_refused(settings: Settings, connections: Connections, app: FastAPI) -> None:
    small = create_app(settings.model_copy(update={"max_json_parts": 100}), connections)
    with Api(small, {"Authorization": f"Bearer {KEY}"}) as client:
        problem(client.post("/v1/jobs", content=b"[]," * 101, headers=JSON), 413, "too_large")


@pytest.mark.parametrize(
    "name", ["..", "..%2f..%2fetc%2fpasswd", "a%2fb", "%00", "other%2fwaves", "a\\b", "%0d%0aX: y"]
)
def test_paths_lead_nowhere(client: Api, name: str) -> None:
    for path in (f"/v1/models/{name}/weights", f"/v1/jobs/{name}/events", f"/v1/adaptations/{name}/weights"):
        answer = client.get(path)
        assert answer.status_code in (404, 422)
        assert "X" not in answer.headers and "root:" not in answer.text


@pytest.mark.parametrize("given", ["a\r\nX-Evil: 1", "a\nINFO all is well", "x" * 65, "é", "<b>", ""])
def test_a_request_id_cannot_carry_anything(client: Api, given: str) -> None:
    async def nothing() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    status, headers, _ = client.raw("GET", "/v1/whoami", {"X-Request-ID": given}, nothing)
    assert status == 200 and headers["x-request-id"].startswith("req_") and "x-evil" not in headers


@pytest.mark.parametrize("as_json", [True, False])
def test_no_line_of_the_log_can_be_forged_and_none_holds_a_key(
    client: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    import logging

    def broken(*_: object, **__: object) -> None:
        raise ValueError('one\n{"level": "info", "event": "forged"}\x1b[2J')

    stream, before = io.StringIO(), logging.getLogger().handlers[:]
    try:
        configure_logging(settings.model_copy(update={"log_json": as_json}), stream=stream)
        monkeypatch.setattr("service.jobs.JobStore.list", broken)
        problem(client.get("/v1/jobs"), 500, "internal")
    finally:
        logging.getLogger().handlers[:] = before
    said = stream.getvalue()
    assert "forged" in said and KEY not in said and "\x1b" not in said
    _, *more = said.splitlines()
    assert as_json != bool(more) and all(line.startswith("    ") for line in more), "a trace, seen to be one"


@pytest.mark.parametrize("stated", [True, False])
def test_a_slow_body_is_not_waited_for(
    settings: Settings, connections: Connections, app: FastAPI, stated: bool
) -> None:
    slow = create_app(settings.model_copy(update={"body_wait_s": 0.1}), connections)
    first = True

    async def receive() -> dict[str, Any]:
        nonlocal first
        if not first:
            await asyncio.Event().wait()
        first = False
        return {"type": "http.request", "body": b"{", "more_body": True}

    with Api(slow, {"Authorization": f"Bearer {KEY}"}) as client:
        length = {"Content-Length": "100"} if stated else {}
        status, headers, body = client.raw("POST", "/v1/jobs", {**JSON, **length}, receive)
    assert status == 408 and headers["connection"] == "close"
    document = json.loads(body)
    assert (document["code"], document["errors"][0]["pointer"]) == ("request_timeout", "")
