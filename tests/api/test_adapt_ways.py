"""Adaptation in other ways: pictures, several tasks, later, under a key of one's own, within a time."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import keys
from service.auth import KeyRing
from service.connection import Connections
from tests.api.conftest import Api, FakeAdapter, register
from tests.api.test_adapt import PATH, X, Y, body
from tests.api.test_errors import problem
from warploom.wire import decode

LATER = {"Prefer": "respond-async"}
STREAM = {"Accept": "text/event-stream"}


def picture(grey: int, kind: str = "PNG", size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, grey if mode == "L" else (grey,) * 3).save(file, kind)
    return file.getvalue()


def files(*greys: int) -> list[tuple[str, tuple[str, bytes]]]:
    found = [(f"support[{label}]", (f"{label}.png", picture(grey))) for label, grey in enumerate(greys)]
    return [*found, ("query", ("q.jpg", picture(greys[1], "JPEG")))]


@pytest.mark.usefixtures("images")
def test_pictures_of_each_class(client: Api, adapter: FakeAdapter) -> None:
    answer = client.post(PATH, files=files(0, 255, 51), data={"steps": "3", "seed": "4"})
    assert answer.status_code == 200, answer.text
    request = adapter.requests[0]
    assert (request.steps, request.seed) == (3, 4)
    arrays = decode("support", request.payload)[0]
    np.testing.assert_allclose(arrays["support_x"][:, 0, 0, 0], [0, 1, 0.2], atol=1e-6)
    assert arrays["support_y"].tolist() == [0, 1, 2]
    assert arrays["query_x"].shape == (1, 1, 2, 2)


@pytest.mark.usefixtures("images", "adapter")
def test_pictures_are_rows_of_a_key(client: Api) -> None:
    assert client.post(PATH, files=files(0, 255, 51)).status_code == 200
    (day,) = client.get("/v1/usage").json()["data"]
    assert day["rows"] == 4


def test_pictures_are_read_as_the_family_reads_its_own(
    client: Api, adapter: FakeAdapter, connections: Connections
) -> None:
    register(connections, "ink", spec={"task": {"name": "glyphs"}})
    colour = {"name": "image-folder", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    register(connections, "colour", input_shape=[3, 2, 2], spec={"task": colour})
    for name, expected in (("ink", [1, 0, 0.8]), ("colour", [-2, 2, -1.2])):
        assert client.post(f"/v1/models/{name}/adapt", files=files(0, 255, 51)).status_code == 200
        x = decode("support", adapter.requests[-1].payload)[0]["support_x"]
        np.testing.assert_allclose(x.reshape(3, -1)[:, 0], expected, atol=1e-6)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ([("support[0]", ("a.png", b"GIF89a nonsense"))], "/support[0]/0"),
        ([("support[0]", ("a.gif", picture(1, "GIF")))], "/support[0]/0"),
        ([("support[0]", ("a.png", picture(1, size=(8192, 4096))))], "/support[0]/0"),
        ([("cats", ("a.png", picture(1)))], "/cats"),
        ([("query", ("a.png", picture(1)))], "/support"),
        (files(0, 1), "/support/y"),
    ],
)
def test_forms_that_are_refused(client: Api, sent: Any, pointer: str) -> None:
    assert problem(client.post(PATH, files=sent), 422, "invalid_input")["errors"][0]["pointer"] == pointer


@pytest.mark.usefixtures("images")
def test_pictures_are_predicted_later(client: Api, adapter: FakeAdapter) -> None:
    made = client.post(PATH, files=files(0, 255, 51)).json()
    path = f"/v1/adaptations/{made['id']}/predict"
    queries = [("query", (f"{grey}.png", picture(grey))) for grey in (255, 0)]
    answer = client.post(path, files=queries)
    assert answer.status_code == 200, answer.text
    assert answer.json()["labels"] == [1, 0]
    arrays = decode("support", adapter.requests[-1].payload)[0]
    np.testing.assert_allclose(arrays["query_x"][:, 0, 0, 0], [1, 0], atol=1e-6)
    (day,) = client.get("/v1/usage").json()["data"]
    assert day["rows"] == 4 + 2
    cat = ("cat.png", picture(1))
    for sent, more, pointer in (
        ([("cats", cat)], {}, "/cats"),
        ([("support[0]", cat), ("query", cat)], {}, "/support[0]"),
        ([("query", ("a.gif", picture(1, "GIF")))], {}, "/query/0"),
        ([("query", cat)], {"steps": "3"}, "/steps"),
    ):
        document = problem(client.post(path, files=sent, data=more), 422, "invalid_input")
        assert document["errors"][0]["pointer"] == pointer
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    empty = problem(client.post(path, content=b"--x--\r\n", headers=form), 422, "invalid_input")
    assert empty["errors"][0]["pointer"] == "/query"


@pytest.mark.usefixtures("adapter")
def test_pictures_need_a_model_of_pictures(client: Api, waves: str) -> None:
    document = problem(client.post(f"/v1/models/{waves}/adapt", files=files(0, 1)), 422, "invalid_input")
    assert "pictures" in document["detail"]


def test_few_examples_are_warned_of(client: Api, adapter: FakeAdapter, connections: Connections) -> None:
    register(connections, "shots", spec={"task": {"name": "glyphs", "shots": 3}})
    client.post("/v1/models/shots/adapt", json=body())
    assert adapter.requests[0].warnings[0] == "class 0 has 2 of the 3 examples that the model learned to adapt from"
    assert len(adapter.requests[0].warnings) == 3


@pytest.mark.usefixtures("images")
def test_several_tasks_in_one_call(client: Api, adapter: FakeAdapter) -> None:
    task = {"support": {"x": X, "y": Y}, "query": {"x": X[1:3]}}
    answer = client.post(PATH, json={"tasks": [task, {**task, "seed": 9}], "steps": 2, "seed": 5})
    assert answer.status_code == 200, answer.text
    assert [one["prediction"]["labels"] for one in answer.json()["data"]] == [[1, 2]] * 2
    assert sorted(request.seed for request in adapter.requests) == [5, 9]
    bad = {"support": {"x": X, "y": Y[:-1]}}
    document = problem(client.post(PATH, json={"tasks": [task, bad]}), 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/tasks/1/support/y"
    problem(client.post(PATH, json={"tasks": []}), 422, "invalid_input")
    problem(client.post(PATH, json={"tasks": [task] * 65}), 422, "invalid_input")
    problem(client.post(PATH, json={"tasks": [task], **task}), 422, "invalid_input")
    assert len(adapter.requests) == 2, "nothing was begun for the calls that were refused"


@pytest.mark.usefixtures("images")
def test_coming_back_for_the_answer(client: Api, connections: Connections) -> None:
    answer = client.post(PATH, json=body(query={"x": X[:2]}), headers=LATER)
    assert answer.status_code == 202
    path = answer.headers["location"]
    assert path == f"/v1/adaptations/{answer.json()['id']}"
    waiting = client.get(path)
    assert (waiting.status_code, waiting.json()["state"], waiting.headers["retry-after"]) == (202, "pending", "1")
    with FakeAdapter(connections):
        frames = client.get(path, headers=STREAM).text
    event = next(frame for frame in frames.split("\n\n") if frame.startswith("event: adaptation"))
    assert json.loads(event.partition("data: ")[2])["prediction"]["labels"] == [0, 1]
    done = client.get(path)
    assert (done.status_code, done.json()["prediction"]["labels"]) == (200, [0, 1])


@pytest.mark.usefixtures("images")
def test_a_failure_waits_too(client: Api, adapter: FakeAdapter) -> None:
    adapter.failing = True
    path = client.post(PATH, json=body(), headers=LATER).headers["location"]
    assert "training_failed" in client.get(path, headers=STREAM).text
    problem(client.get(path), 500, "training_failed")


@pytest.mark.usefixtures("images")
def test_what_takes_long_turns_into_coming_back(client: Api, connections: Connections) -> None:
    services = client.app.state.services
    object.__setattr__(services, "settings", services.settings.model_copy(update={"adapt_sync_s": 0.1}))
    with FakeAdapter(connections) as slow:
        slow.deaf = True
        answer = client.post(PATH, json=body())
        assert answer.status_code == 202
        slow.deaf = False
        assert "event: adaptation" in client.get(answer.headers["location"], headers=STREAM).text
    object.__setattr__(services, "settings", services.settings.model_copy(update={"adapt_sync_work": 10}))
    assert client.post(PATH, json=body()).status_code == 202


@pytest.mark.usefixtures("images")
def test_a_caller_that_waits_for_a_time(client: Api, connections: Connections) -> None:
    with FakeAdapter(connections) as slow:
        slow.deaf = True
        problem(client.post(PATH, json=body(), headers={"X-Request-Timeout": "1"}), 504, "timed_out")
        slow.deaf = False
        for refused in ("soon", "0.1"):
            problem(client.post(PATH, json=body(), headers={"X-Request-Timeout": refused}), 422, "invalid_input")
        assert client.post(PATH, json=body(), headers={"X-Request-Timeout": "20"}).status_code == 200
        assert len(slow.requests) == 1, "nobody works on what nobody waits for"


@pytest.mark.usefixtures("images")
def test_a_key_of_ones_own_gives_one_answer(client: Api, adapter: FakeAdapter, connections: Connections) -> None:
    mine = {"Idempotency-Key": "first"}
    first = client.post(PATH, json=body(query={"x": X[:2]}), headers=mine)
    again = client.post(PATH, json=body(query={"x": X[:2]}), headers=mine)
    assert first.json() == again.json()
    assert len(adapter.requests) == 1
    document = problem(client.post(PATH, json=body(query={"x": X[:3]}), headers=mine), 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/headers/idempotency-key"
    other = client.as_key(KeyRing(connections).create("other", tenant="default", scopes=("adapt",)).secret)
    assert other.post(PATH, json=body(query={"x": X[:3]}), headers=mine).json()["id"] != first.json()["id"]


@pytest.mark.usefixtures("images")
def test_a_full_queue_says_when_to_come_again(client: Api, connections: Connections) -> None:
    connections.replay.xadd(keys.REQUESTS, {"request": "{}"})
    services = client.app.state.services
    object.__setattr__(services, "settings", services.settings.model_copy(update={"adapt_queue": 1}))
    answer = client.post(PATH, json=body())
    problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    connections.replay.delete(keys.REQUESTS)


@pytest.mark.usefixtures("images")
def test_equal_tasks_have_equal_content_and_others_have_not(client: Api, adapter: FakeAdapter) -> None:
    for changes in ({}, {"query": {"x": X[:1]}}, {"seed": 1}, {"steps": 3}, {"lr": 0.3}):
        client.post(PATH, json=body(**changes))
    contents = [request.content for request in adapter.requests]
    assert contents[0] == contents[1]
    assert len(set(contents)) == 4
