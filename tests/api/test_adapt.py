"""Adaptation: what is accepted, what is refused and how, what comes back."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from safetensors.numpy import load

from service.connection import Connections
from tests.api.conftest import Api, FakeAdapter, register
from tests.api.test_errors import problem
from warploom.wire import decode

X = [[[float(label), 0.0], [0.5, 1.0]] for label in (0, 1, 2, 0, 1, 2)]
Y = [0, 1, 2, 0, 1, 2]
PATH = "/v1/models/images/adapt"
NPZ = {"Content-Type": "application/x-npz"}


def body(**changes: Any) -> dict[str, Any]:
    return {"support": {"x": X, "y": Y}, **changes}


def npz(**arrays: ArrayLike) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.usefixtures("images")
def test_json_with_queries(client: Api, adapter: FakeAdapter) -> None:
    answer = client.post(PATH, json=body(query={"x": X[:3]}, steps=7, lr=0.2, seed=3))
    assert answer.status_code == 200, answer.text
    adapted = answer.json()
    assert adapted["prediction"]["labels"] == [0, 1, 2]
    assert adapted["prediction"]["outputs"][1] == [0, 1, 0]
    assert adapted["prediction"]["confidence"] == [1, 1, 1]
    assert (adapted["steps"], adapted["lr"], adapted["version"]) == (7, 0.2, 1)
    request = adapter.requests[0]
    assert request.seed == 3
    arrays = decode("support", request.payload)[0]
    assert arrays["support_x"].shape == (6, 1, 2, 2)
    assert arrays["support_x"].dtype == np.float32
    assert arrays["support_y"].dtype == np.int64


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("kind", ["application/x-npz", "application/octet-stream"])
def test_npz_with_options_in_the_query(client: Api, adapter: FakeAdapter, kind: str) -> None:
    blob = npz(support_x=np.asarray(X, np.uint8), support_y=np.asarray(Y, np.int8), query_x=X[:2])
    answer = client.post(PATH, content=blob, headers={"Content-Type": kind}, params={"steps": 0, "version": 1})
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"]["labels"] == [0, 1]
    assert adapter.requests[0].steps == 0
    assert adapter.requests[0].lr == 0.1


def test_regression(client: Api, adapter: FakeAdapter, waves: str) -> None:
    support = {"x": [1.0, 2.0], "y": [[0.5], [0.25]]}
    answer = client.post(f"/v1/models/{waves}/adapt", json={"support": support, "query": {"x": [[3.5]]}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"] == {"labels": None, "confidence": None, "outputs": [[3.5]]}
    assert decode("support", adapter.requests[0].payload)[0]["support_y"].shape == (2, 1)


@pytest.mark.usefixtures("images", "adapter")
def test_adapted_weights_can_be_downloaded_and_forgotten(client: Api) -> None:
    adapted = client.post(PATH, json=body()).json()
    path = f"/v1/adaptations/{adapted['id']}"
    answer = client.get(f"{path}/weights")
    assert answer.status_code == 200
    assert answer.headers["x-content-sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert load(answer.content)["w"].tolist() == [1.0]
    for _ in range(2):
        assert client.delete(path).status_code == 204
    for gone in (client.get(path), client.get(f"{path}/weights")):
        problem(gone, 404, "not_found")


@pytest.mark.usefixtures("images", "adapter")
def test_predict_later(client: Api) -> None:
    adapted = client.post(PATH, json=body()).json()
    assert adapted["prediction"] is None
    path = f"/v1/adaptations/{adapted['id']}"
    assert client.get(path).json()["id"] == adapted["id"]
    answer = client.post(f"{path}/predict", json={"query": {"x": X[1:3]}})
    assert answer.json()["labels"] == [1, 2]
    assert client.post(f"{path}/predict", content=npz(query_x=X[:1]), headers=NPZ).json()["labels"] == [0]
    bad = problem(client.post(f"{path}/predict", json={"query": {"x": [[1.0]]}}), 422, "invalid_input")
    assert bad["errors"][0]["pointer"] == "/query/x"
    problem(client.get("/v1/adaptations/adapt_none"), 404, "not_found")
    problem(client.post("/v1/adaptations/adapt_none/predict", json={"query": {"x": X}}), 404, "not_found")


def rows(**changed: Any) -> list[Any]:
    return [changed.get(f"row{number}", row) for number, row in enumerate(X)]


NAN_ROW = [[float("nan"), 0.0], [0.0, 0.0]]
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"support": {"x": rows(row3=NAN_ROW), "y": Y}}, "/support/x/3", "finite, got nan"),
    ({"support": {"x": rows(row0=[[1e300, 0.0], [0.0, 0.0]]), "y": Y}}, "/support/x/0", "finite"),
    ({"support": {"x": rows(row2=[["a", 0.0], [0.0, 0.0]]), "y": Y}}, "/support/x/2", "numbers"),
    ({"support": {"x": rows(row5=None), "y": Y}}, "/support/x/5", "numbers"),
    ({"support": {"x": rows(row4=[[1.0], [2.0]]), "y": Y}}, "/support/x/4", "shape [2, 1]"),
    ({"support": {"x": [[[1.0]]] * 6, "y": Y}}, "/support/x", "[rows, 1, 2, 2]"),
    ({"support": {"x": [], "y": []}}, "/support/x", "no rows"),
    ({"support": {"x": X * 20, "y": Y * 20}}, "/support/x", "at most 100 rows"),
    ({"support": {"x": X, "y": Y[:-1]}}, "/support/y", "6 rows"),
    ({"support": {"x": X, "y": [0, 1, 3, 0, 1, 2]}}, "/support/y/2", "from 0 to 2, got 3"),
    ({"support": {"x": X, "y": [0, 1, 2, -1, 1, 2]}}, "/support/y/3", "got -1"),
    ({"support": {"x": X, "y": [0, 1, 1.5, 0, 1, 2]}}, "/support/y/2", "got 1.5"),
    ({"support": {"x": X, "y": [0, 1, float("nan"), 0, 1, 2]}}, "/support/y/2", "got nan"),
    ({"support": {"x": X, "y": ["a"] * 6}}, "/support/y/0", "numbers"),
    ({"support": {"x": X, "y": [[0], [1], [2], [0], [1], [2]]}}, "/support/y", "one class number"),
    ({"support": {"x": X, "y": [0, 1, 1, 0, 1, 1]}}, "/support/y", "class 2 is missing"),
    ({"support": {"x": X, "y": [1] * 6}}, "/support/y", "classes 0, 2 are missing"),
    ({"query": {"x": [NAN_ROW]}}, "/query/x/0", "finite"),
    ({"query": {"x": [[1.0, 2.0]]}}, "/query/x", "shape"),
    ({"steps": 51}, "/steps", "from 0 to 50, got 51"),
    ({"steps": -1}, "/steps", "greater than or equal to 0"),
    ({"lr": 0}, "/lr", "greater than 0"),
    ({"lr": float("inf")}, "/lr", "finite"),
    ({"lr": "fast"}, "/lr", "number"),
    ({"colour": 1}, "/colour", "permitted"),
    ({"support": {"x": X}}, "/support/y", "required"),
    ({"support": {"x": 5, "y": Y}}, "/support/x", "array"),
]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(("changes", "pointer", "says"), REFUSED)
def test_refusals_name_the_place(client: Api, changes: dict[str, Any], pointer: str, says: str) -> None:
    content = json.dumps(body(**changes))
    answer = client.post(PATH, content=content, headers={"Content-Type": "application/json"})
    error = problem(answer, 422, "invalid_input")["errors"][0]
    assert error["pointer"] == pointer
    assert says in error["message"]
    assert error["rule"]


@pytest.mark.usefixtures("images")
def test_several_bad_options_are_all_named(client: Api) -> None:
    document = problem(client.post(PATH, json=body(steps=-1, lr=-2)), 422, "invalid_input")
    assert {error["pointer"] for error in document["errors"]} == {"/steps", "/lr"}


def truncated() -> bytes:
    return npz(support_x=X, support_y=Y)[:-40]


def damaged() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, support_x=np.random.default_rng(0).normal(size=(9, 4)), support_y=np.arange(9))
    blob = bytearray(file.getvalue())
    blob[80:160] = b"\x55" * 80
    return bytes(blob)


def bomb() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, support_x=np.zeros((1, 10**7)), support_y=np.zeros(1))
    return file.getvalue()


def liar() -> bytes:
    """A header that promises more numbers than there is memory for."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("support_x.npy", array.getvalue())
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, support_x=np.asarray([{}], object), support_y=np.zeros(1))
    return file.getvalue()


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("make", [lambda: b"", lambda: b"PK\x03\x04", truncated, damaged, bomb, liar, pickled])
def test_archives_that_are_not_what_they_claim(client: Api, make: Any) -> None:
    problem(client.post(PATH, content=make(), headers=NPZ), 422, "corrupt_payload")


@pytest.mark.usefixtures("images")
def test_npz_without_labels_or_with_unknown_options(client: Api) -> None:
    document = problem(client.post(PATH, content=npz(support_x=X), headers=NPZ), 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/support/y"
    blob = npz(support_x=X, support_y=Y)
    for query in ({"setps": 1}, {"steps": "many"}, {"lr": "nan"}):
        problem(client.post(PATH, content=blob, headers=NPZ, params=query), 422, "invalid_input")
    words = npz(support_x=np.asarray(["a", "b"]), support_y=[0, 1])
    assert client.post(PATH, content=words, headers=NPZ).json()["errors"][0]["pointer"] == "/support/x"


@pytest.mark.usefixtures("images")
def test_unknown_models_and_versions(client: Api) -> None:
    problem(client.post("/v1/models/none/adapt", json=body()), 404, "not_found")
    problem(client.post(PATH, json=body(version=9)), 404, "not_found")
    problem(client.get("/v1/models/..%2f..%2fetc"), 404, "not_found")


@pytest.mark.usefixtures("images")
def test_failures_of_the_adapter(client: Api, adapter: FakeAdapter) -> None:
    adapter.failing = True
    document = problem(client.post(PATH, json=body()), 500, "training_failed")
    assert document["detail"] == "the fake was told to fail"
    adapter.failing, adapter.diverging = False, True
    document = problem(client.post(PATH, json=body(query={"x": X})), 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/lr"


@pytest.mark.usefixtures("images")
def test_nobody_answers(client: Api, connections: Connections) -> None:
    from service.fleet import Fleet

    services = client.app.state.services
    object.__setattr__(services, "settings", services.settings.model_copy(update={"adapt_wait_s": 0.2}))
    problem(client.post(PATH, json=body()), 503, "unavailable")
    Fleet(connections).beat("adapter", "deaf", 60)
    problem(client.post(PATH, json=body()), 504, "timed_out")


def test_models_and_weights(client: Api, connections: Connections, images: str) -> None:
    register(connections, images, once="second", outputs=4)
    assert [model["version"] for model in client.get("/v1/models").json()["data"]] == [2]
    assert client.get("/v1/models/images?version=1").json()["outputs"] == 3
    answer = client.get("/v1/models/images/weights?version=1")
    assert decode("model", answer.content)[0]["w"].tolist() == [1, 1, 1]
    assert answer.headers["etag"] == f'"{answer.headers["x-content-sha256"]}"'
    problem(client.get("/v1/models/none/weights"), 404, "not_found")
