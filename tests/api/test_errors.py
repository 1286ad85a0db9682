"""Every refusal is a problem document with the request's id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api.errors import LONGEST_TEXT, MOST_ERRORS, NAMED, tame
from service.connection import Connections
from tests.api.conftest import Api
from warploom.errors import Unavailable


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["errors"] or status not in NAMED, "what is wrong is told"
    for error in document["errors"]:
        assert set(error) == {"pointer", "rule", "value", "message"}
        assert error["pointer"] == "" or error["pointer"].startswith("/")
        assert error["rule"] and error["message"]
    return document


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong-key-wrong-key", "Basic abc", "Bearer \xe9"]
)
def test_without_the_key_nothing_opens(anonymous: Api, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    answer = anonymous.get("/v1/jobs", headers=headers)
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_an_unknown_private_path_says_401_before_404(anonymous: Api) -> None:
    problem(anonymous.get("/v1/nothing"), 401, "unauthenticated")
    problem(anonymous.post("/v1/jobs", content=b"{not json"), 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/livez", "/version", "/metrics", "/", "/docs", "/openapi.json", "/assets/app.js"])
def test_public_pages_need_no_key(anonymous: Api, path: str) -> None:
    answer = anonymous.get(path)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/nothing", "/assets/none.js", "/assets/../app.py", "/v1/jobs/job_none"]
)
def test_404(client: Api, path: str) -> None:
    problem(client.get(path), 404, "not_found")


def test_405_says_what_is_allowed(client: Api) -> None:
    answer = client.delete("/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/sweeps", "/v1/models/images/adapt"])
def test_415(client: Api, path: str) -> None:
    for headers in ({"Content-Type": "text/plain"}, {}):
        document = problem(client.post(path, content=b"{}", headers=headers), 415, "unsupported_media_type")
        assert "application/json" in document["detail"]


def body_of(chunks: int, size: int) -> Iterator[bytes]:
    for _ in range(chunks):
        yield b"x" * size


def test_413_with_the_length_stated(client: Api) -> None:
    headers = {"Content-Type": "application/json"}
    document = problem(client.post("/v1/jobs", content=b"x" * 200_001, headers=headers), 413, "too_large")
    assert "200000" in document["detail"]


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "10"}, {"Content-Length": "-5"}, {"Content-Length": "x"}])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models/images/adapt"])
def test_413_while_streaming(client: Api, path: str, headers: dict[str, str]) -> None:
    headers = {"Content-Type": "application/json", **headers}
    problem(client.post(path, content=body_of(30, 10_000), headers=headers), 413, "too_large")


def test_413_for_an_absurd_length(client: Api) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": "9" * 5000}
    problem(client.post("/v1/jobs", content=b"{}", headers=headers), 413, "too_large")


def test_all_bad_fields_are_named(client: Api, spec: dict[str, Any]) -> None:
    spec["training"] = {"rounds": -1, "meta_batch": "many", "sed": 1}
    spec["algorithm"] = {"name": "warpgrad", "inner_lr": 0}
    document = problem(client.post("/v1/jobs", json=spec), 422, "invalid_input")
    found = {error["pointer"]: error for error in document["errors"]}
    assert set(found) == {"/training/rounds", "/training/meta_batch", "/training/sed", "/algorithm/inner_lr"}
    assert found["/training/rounds"]["value"] == -1
    assert "greater than or equal to 0" in found["/training/rounds"]["message"]


def test_unknown_algorithm(client: Api, spec: dict[str, Any]) -> None:
    document = problem(client.post("/v1/jobs", json=spec | {"algorithm": "magic"}), 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/algorithm"
    assert "warpgrad" in document["detail"]


def test_unfit_pair(client: Api, spec: dict[str, Any]) -> None:
    document = problem(client.post("/v1/jobs", json=spec | {"model": "mlp"}), 422, "unfit_pair")
    assert document["errors"][0]["pointer"] == "/model"
    assert "warp_mlp" in document["detail"]
    sweep = {"job": spec | {"model": "mlp"}, "space": {"algorithm.inner_lr": {"type": "choice", "values": [0.1]}}}
    document = problem(client.post("/v1/sweeps", json=sweep), 422, "unfit_pair")
    assert document["errors"][0]["pointer"] == "/job/model"


@pytest.mark.parametrize(
    "body", [b"{", b"", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"training": {"rounds": NaN}}']
)
def test_bodies_that_are_no_spec(client: Api, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    problem(answer, answer.status_code, answer.json()["code"])


def test_a_form_that_is_none(client: Api) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    document = problem(
        client.post("/v1/models/images/adapt", content=b"--x\r\nno", headers=headers), 400, "bad_request"
    )
    assert document["errors"][0]["pointer"] == ""


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_numbers_that_json_or_python_cannot_say(client: Api, number: str) -> None:
    body = f'{{"algorithm": {{"name": "none", "inner_lr": {number}}}, "task": "sinusoid", "model": "mlp"}}'
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    document = problem(answer, 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/algorithm/inner_lr"


def test_huge_values_are_not_echoed(client: Api, spec: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", json=spec | {"name": "x" * 100_000, "y" * 50_000: "z"})
    problem(answer, 422, "invalid_input")
    assert len(answer.content) < 8 * LONGEST_TEXT
    many = {f"unknown{i}": 1 for i in range(2000)}
    assert len(client.post("/v1/jobs", json=spec | many).json()["errors"]) == MOST_ERRORS


def test_request_id_is_taken_over_when_harmless(client: Api) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<script>"):
        assert client.get("/livez", headers={"X-Request-ID": bad}).headers["x-request-id"].startswith("req_")


def test_an_unforeseen_error_shows_no_trace(client: Api, monkeypatch: Any, caplog: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("service.jobs.JobStore.list", fail)
    answer = client.get("/v1/jobs")
    document = problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert document["request_id"] in caplog.text
    assert "secret detail" in caplog.text


def test_redis_down_is_503(client: Api, monkeypatch: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise Unavailable("the state server does not answer")

    monkeypatch.setattr("service.connection.RoleClient.execute_command", fail)
    answer = client.get("/v1/jobs")
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
    down = problem(client.get("/readyz"), 503, "unavailable")
    assert "state_redis" in down["down"]
    assert "warploom_redis_up 0.0" in client.get("/metrics").text
    assert client.get("/livez").status_code == 200


def test_cancel_of_a_finished_job_is_a_conflict(client: Api, connections: Connections, spec: dict[str, Any]) -> None:
    from service.jobs import JobStore

    store = JobStore(connections)
    job = client.post("/v1/jobs", json=spec).json()
    claim = store.claim("test", 60)
    assert claim is not None
    store.finish(job["id"], claim.generation, "succeeded")
    problem(client.post(f"/v1/jobs/{job['id']}/cancel"), 409, "conflict")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "state=nonsense"])
def test_bad_query(client: Api, query: str) -> None:
    problem(client.get(f"/v1/jobs?{query}"), 422, "invalid_input")


def test_tame() -> None:
    assert tame(10**400) == "an integer of 1329 bits"
    assert tame({"a": 1}) == "object"
    assert tame(float("inf")) == "inf"
    assert tame(b"x") == "bytes"
    assert len(tame("x" * 1000)) == LONGEST_TEXT
