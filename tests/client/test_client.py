"""The client: what it sends, what it makes of answers, when it tries again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from tests.client.conftest import JOB, Recorder, ok
from warploom import errors
from warploom.build import build
from warploom.client.endpoint import DEFAULT_URL, find
from warploom.client.problems import error_of
from warploom.codec import pack_model
from warploom.spec import JobSpec
from warploom.wire import read_npz

Maker = Callable[..., Any]
ADAPTED = {
    "id": "adapt_1", "model": "m", "version": 1, "steps": 1, "lr": 0.1, "losses": [1.0], "expires_at": 2.0,
    "prediction": {"labels": [0], "outputs": [[1.0, 0.0]]}, "field_of_a_later_version": True,
}  # fmt: skip


def every_error() -> Iterator[type[errors.WarploomError]]:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.WarploomError) and kind is not errors.WarploomError:
            yield kind


@pytest.mark.parametrize("kind", list(every_error()))
def test_every_problem_becomes_its_error(client_of: Maker, kind: type[errors.WarploomError]) -> None:
    problem = kind("it broke", field="/a/b", rule="no more", value=3).as_problem()
    recorder = Recorder(httpx.Response(kind.status, json=problem))
    with client_of(recorder) as client, pytest.raises(errors.WarploomError) as caught:
        client.submit({})
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.field, caught.value.rule, caught.value.value) == (
        "it broke", "/a/b", "no more", 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthenticated),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (422, errors.InvalidInput),
        (500, errors.WarploomError),
        (418, errors.WarploomError),
        (504, errors.TimedOut),
    ],
)
def test_unknown_codes_and_foreign_answers_fall_back_to_the_status(
    client_of: Maker, status: int, kind: type[errors.WarploomError]
) -> None:
    assert type(error_of({"code": "from_the_future"}, status)) is kind
    recorder = Recorder(httpx.Response(status, text="<html>proxy</html>"))
    with client_of(recorder) as client, pytest.raises(errors.WarploomError) as caught:
        client.job("job_1")
    assert type(caught.value) is kind


def test_several_fields_are_all_in_the_message() -> None:
    fields = [{"pointer": f"/{name}", "message": "is bad", "rule": "r", "value": 1} for name in "ab"]
    fields.append({"pointer": "/c", "message": "/c: is bad", "rule": "r", "value": 1})
    error = error_of({"code": "invalid_input", "errors": fields}, 422)
    assert error.message == "/a: is bad; /b: is bad; /c: is bad"
    assert error.field == "/a"


def test_submit_sends_the_spec_and_the_key(client_of: Maker) -> None:
    recorder = Recorder(ok(JOB, 202))
    spec = JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp"})
    with client_of(recorder) as client:
        client.submit(spec)
    request = recorder.requests[0]
    assert request.headers["authorization"] == "Bearer secret-key"
    assert JobSpec.parse(json.loads(request.content)) == spec


def test_adapt_sends_npz_and_options(client_of: Maker) -> None:
    recorder = Recorder(ok(ADAPTED))
    with client_of(recorder) as client:
        adapted = client.adapt("m", [[1.0], [2.0]], [0, 1], np.ones((1, 1)), steps=0, lr=0.5)
    assert adapted.prediction is not None
    assert adapted.prediction.labels == [0]
    request = recorder.requests[0]
    arrays = read_npz(request.content, max_bytes=10_000)
    assert sorted(arrays) == ["query_x", "support_x", "support_y"]
    assert dict(request.url.params) == {"steps": "0", "lr": "0.5"}


PENDING = {"id": "adapt_1", "status": "pending", "model": "m", "version": 1, "retry_in_seconds": 0.5}


def test_what_takes_longer_is_asked_for_again(client_of: Maker) -> None:
    recorder = Recorder(ok(PENDING, 202), ok(PENDING, 202), ok(ADAPTED), ok(PENDING, 202), ok(ADAPTED))
    with client_of(recorder) as client:
        assert client.adapt("m", [[1.0]], [0], deadline_s=9).losses == [1.0]
        assert client.adaptation("adapt_1").id == "adapt_1"
    assert [(r.method, r.url.path) for r in recorder.requests[:2]] == [
        ("POST", "/v1/models/m/adapt"), ("GET", "/v1/adaptations/adapt_1"),
    ]  # fmt: skip
    assert recorder.pauses == [0.5] * 3
    assert recorder.requests[0].headers["x-request-timeout"] == "9"
    assert recorder.requests[0].headers["idempotency-key"]


def test_several_tasks_in_one_call(client_of: Maker) -> None:
    recorder = Recorder(ok({"data": [ADAPTED, PENDING]}, 202), ok(ADAPTED))
    with client_of(recorder) as client:
        assert len(client.adapt_many("m", [([[1.0]], [0]), ([[2.0]], [1], np.ones((1, 1)))], steps=2)) == 2
    assert json.loads(recorder.requests[0].content) == {
        "steps": 2,
        "tasks": [
            {"support": {"x": [[1.0]], "y": [0]}},
            {"support": {"x": [[2.0]], "y": [1]}, "query": {"x": [[1.0]]}},
        ],
    }


def test_pictures_are_sent_as_a_form_and_again_after_a_break(client_of: Maker, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"of a file")
    recorder = Recorder(httpx.ReadError("broke"), ok(ADAPTED))
    with client_of(recorder) as client:
        support = {0: [tmp_path / "a.png", b"of bytes"], 1: [str(tmp_path / "a.png")]}
        assert client.adapt_pictures("m", support, [b"unknown"], steps=2, lr=0.5).id == "adapt_1"
    for request in recorder.requests:
        form = BytesParser(policy=HTTP).parsebytes(
            b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + request.content
        )
        parts = [(p.get_param("name", header="content-disposition"), p.get_payload(decode=True)) for p in form.walk()]
        assert parts[1:] == [
            ("steps", b"2"), ("lr", b"0.5"), ("support[0]", b"of a file"), ("support[0]", b"of bytes"),
            ("support[1]", b"of a file"), ("query", b"unknown"),
        ]  # fmt: skip
    assert len({request.headers["idempotency-key"] for request in recorder.requests}) == 1


def test_pictures_that_are_not_there_are_not_sent(client_of: Maker) -> None:
    for support, field in (({}, "/support"), ({1: ["/none.png"]}, "/support[1]")):
        with client_of(Recorder(ok(ADAPTED))) as client, pytest.raises(errors.InvalidInput) as caught:
            client.adapt_pictures("m", support, [b"x"])
        assert caught.value.field == field


@pytest.mark.parametrize("bad", [[[1.0], [1.0, 2.0]], ["a"], [object()], [None]])
def test_adapt_refuses_what_is_no_array(client_of: Maker, bad: Any) -> None:
    with client_of(Recorder(ok(ADAPTED))) as client, pytest.raises(errors.InvalidInput) as caught:
        client.adapt("m", bad, [0])
    assert caught.value.field == "/support/x"


def test_names_cannot_reach_other_routes(client_of: Maker) -> None:
    recorder = Recorder(ok(JOB))
    with client_of(recorder) as client:
        client.job("../models?x=1#y")
        for name in ("", ".", ".."):
            with pytest.raises(errors.InvalidInput):
                client.job(name)
    assert recorder.requests[0].url.raw_path == b"/v1/jobs/..%2Fmodels%3Fx%3D1%23y"


def test_wait(client_of: Maker) -> None:
    running, done = JOB | {"state": "running"}, JOB | {"state": "a_state_from_the_future"}
    recorder = Recorder(ok(running), ok(done), ok(JOB | {"state": "failed"}))
    with client_of(recorder) as client:
        assert client.wait("job_1").state == "failed"
    with client_of(Recorder(ok(running))) as client, pytest.raises(errors.TimedOut):
        client.wait("job_1", timeout_s=0)


def test_download_checks_the_checksum(client_of: Maker) -> None:
    answer = httpx.Response(200, content=b"weights", headers={"X-Content-SHA256": "0" * 64})
    with client_of(Recorder(answer)) as client, pytest.raises(errors.WireError):
        client.download("m")


def test_a_downloaded_model_adapts_here(client_of: Maker) -> None:
    spec = JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp"})
    blob = pack_model(spec, build(spec).init(0))
    with client_of(Recorder(httpx.Response(200, content=blob))) as client:
        local = client.download_model("m", version=2)
    net = local.adapt([[0.0], [1.0]], [1.0, 2.0])
    assert net(torch.zeros(5, 1)).shape == (5, 1)


def test_adapted_weights_are_checked_too_and_can_be_forgotten(client_of: Maker) -> None:
    good = httpx.Response(200, content=b"abc", headers={"X-Content-SHA256": hashlib.sha256(b"abc").hexdigest()})
    torn = httpx.Response(200, content=b"ab", headers=good.headers)
    recorder = Recorder(good, torn, httpx.Response(204))
    with client_of(recorder) as client:
        assert client.adapted_weights("ad_1") == b"abc"
        with pytest.raises(errors.WireError, match="ad_1"):
            client.adapted_weights("ad_1")
        client.forget("ad_1")
    assert (recorder.requests[2].method, recorder.requests[2].url.path) == ("DELETE", "/v1/adaptations/ad_1")


def test_an_answer_from_something_else(client_of: Maker) -> None:
    with client_of(Recorder(httpx.Response(200, text="hello"))) as client, pytest.raises(errors.WireError):
        list(client.jobs())


def test_where_the_service_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find() == (DEFAULT_URL, None)
    saved = tmp_path / "credentials.json"
    saved.write_text(json.dumps({"url": "http://saved:1/", "api_key": "from-file"}))
    assert find() == ("http://saved:1", "from-file")
    assert find("http://other") == ("http://other", None)
    monkeypatch.setenv("WARPLOOM_URL", "http://elsewhere/")
    assert find() == ("http://elsewhere", None)
    monkeypatch.setenv("WARPLOOM_API_KEY", "from-environment")
    assert find() == ("http://elsewhere", "from-environment")
    assert find("http://mine", "given") == ("http://mine", "given")
    saved.write_text("[broken")
    assert find().url == "http://elsewhere"
