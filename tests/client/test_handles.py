"""Pages, and objects that can be asked again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np

from tests.client.conftest import JOB, Recorder, ok
from warploom import records
from warploom.client import AsyncClient, Client, handles
from warploom.client.operations import _Described

Maker = Callable[..., Any]


def job(number: int) -> dict[str, Any]:
    return JOB | {"id": f"job_{number}"}


def test_a_list_goes_on_to_its_end(client_of: Maker) -> None:
    first, second = ok({"data": [job(3), job(2)], "has_more": True}), ok({"data": [job(1)], "has_more": False})
    recorder = Recorder(first, second)
    with client_of(recorder) as client:
        assert [found.id for found in client.jobs(limit=2, state="queued")] == ["job_3", "job_2", "job_1"]
    asked = [dict(request.url.params) for request in recorder.requests]
    assert asked == [{"limit": "2", "state": "queued"}, {"limit": "2", "state": "queued", "after": "job_2"}]


def test_a_page_is_a_page(client_of: Maker) -> None:
    recorder = Recorder(ok({"data": [job(3)], "has_more": True}))
    with client_of(recorder) as client:
        page = client.jobs(1, "job_4")
        assert ([found.id for found in page.data], page.has_more) == (["job_3"], True)
    assert dict(recorder.requests[0].url.params) == {"limit": "1", "after": "job_4"}
    assert len(recorder.requests) == 1


def test_a_job_can_be_asked_again(client_of: Maker) -> None:
    recorder = Recorder(
        ok(JOB, 202), ok(JOB), ok(JOB | {"state": "succeeded", "phase_of_the_future": 1}), ok({"curves": {}})
    )
    with client_of(recorder) as client:
        job = client.submit({})
        done = job.wait()
        assert (job.state, done.state) == ("queued", "succeeded")
        assert done.metrics(["loss"]).curves == {}
    assert [request.url.path for request in recorder.requests] == [
        "/v1/jobs", "/v1/jobs/job_1", "/v1/jobs/job_1", "/v1/jobs/job_1/metrics",
    ]  # fmt: skip


def test_jobs_of_a_list_and_adaptations_too(client_of: Maker) -> None:
    adapted = {"id": "ad_1", "model": "m", "version": 1, "steps": 1, "lr": 0.1, "losses": [1.0], "expires_at": 2.0}
    page, prediction = {"data": [JOB], "has_more": False}, {"labels": [1], "outputs": [[0.0, 1.0]]}
    recorder = Recorder(ok(page), ok(JOB), ok(adapted), ok(prediction), httpx.Response(204))
    with client_of(recorder) as client:
        next(iter(client.jobs())).cancel()
        adaptation = client.adapt("m", [[1.0]], [0])
        assert adaptation.predict(np.ones((1, 1))).labels == [1]
        adaptation.forget()
    assert [request.url.path for request in recorder.requests][1:] == [
        "/v1/jobs/job_1/cancel", "/v1/models/m/adapt", "/v1/adaptations/ad_1/predict", "/v1/adaptations/ad_1",
    ]  # fmt: skip


def test_helpers_hide_no_field_and_nothing_of_the_client_shows() -> None:
    for kind, bound in (handles.KINDS | handles.ASYNC_KINDS).items():
        helpers = {
            name for base in bound.__mro__ for name, value in vars(base).items() if isinstance(value, _Described)
        }
        assert helpers
        assert not helpers & set(kind.model_fields)
    record = records.Job.model_validate(JOB)
    assert handles.bind(record, core=None, kinds=handles.KINDS).model_dump() == record.model_dump()  # type: ignore[arg-type]


def test_every_operation_is_described_and_both_clients_have_the_same() -> None:
    for name in {name for name in dir(Client) if not name.startswith("_")}:
        assert inspect.getdoc(getattr(Client, name)), name
    assert [n for n in dir(Client) if n[0] != "_"] == [n for n in dir(AsyncClient) if n[0] != "_"]
    with Client("http://service") as client:
        assert str(inspect.signature(client.wait)) == "(id: 'str', timeout_s: 'float | None' = None) -> 'Job'"
