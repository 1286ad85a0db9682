"""When a request is made again."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.client.conftest import JOB, Recorder, ok
from warploom import errors
from warploom.client.retries import MAX_RETRIES, retry_after

Maker = Callable[..., Any]
BUSY = httpx.Response(503, json=errors.Unavailable("busy").as_problem(), headers={"Retry-After": "1"})
BROKEN = httpx.ReadError("reset")


def failing(status: int) -> httpx.Response:
    return httpx.Response(
        status, json={"status": status, "code": "of_the_future", "detail": "no", "request_id": "req_9"}
    )


@pytest.mark.parametrize("trouble", [BROKEN, httpx.ReadTimeout("slow"), *map(failing, (408, 429, 500, 502, 503, 504))])
def test_reads_are_repeated(client_of: Maker, trouble: Any) -> None:
    recorder = Recorder(trouble, trouble, ok(JOB))
    with client_of(recorder) as client:
        assert client.job("job_1").state == "queued"
    assert len(recorder.requests) == 3
    assert [0.375 <= recorder.pauses[0] <= 0.5, 0.75 <= recorder.pauses[1] <= 1.0] == [True, True]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_refusals_are_not(client_of: Maker, status: int) -> None:
    recorder = Recorder(failing(status))
    with client_of(recorder) as client, pytest.raises(errors.WarploomError) as caught:
        client.pause("job_1")
    assert len(recorder.requests) == 1
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, "of_the_future", "req_9")


def test_the_services_pause_is_kept_unless_it_is_long(client_of: Maker) -> None:
    recorder = Recorder(BUSY, ok(JOB))
    with client_of(recorder) as client:
        client.job("job_1")
    assert recorder.pauses == [1.0]
    long = Recorder(httpx.Response(429, headers={"Retry-After": "3600"}))
    with client_of(long) as client, pytest.raises(errors.WarploomError) as caught:
        client.job("job_1")
    assert (len(long.requests), caught.value.status) == (1, 429)


def test_retry_after_as_a_date() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    found = retry_after(httpx.Response(503, headers={"Retry-After": date}))
    assert found is not None
    assert 25 < found <= 30
    assert retry_after(httpx.Response(503, headers={"Retry-After": "soon"})) is None


def test_how_often_is_a_matter_of_the_client_and_of_the_call(client_of: Maker) -> None:
    dead = Recorder(httpx.ConnectError("refused"))
    for client, requests in (
        (client_of(dead), 1 + MAX_RETRIES),
        (client_of(dead, max_retries=4), 5),
        (client_of(dead).with_options(max_retries=0), 1),
    ):
        dead.requests.clear()
        with pytest.raises(errors.Unavailable, match="http://service"):
            client.job("job_1")
        assert len(dead.requests) == requests


def test_submissions_are_repeated_under_one_key(client_of: Maker) -> None:
    running = httpx.Response(409, json=errors.Conflict("still running").as_problem())
    flaky = Recorder(BROKEN, running, ok(JOB, 202), ok(JOB, 202))
    with client_of(flaky) as client:
        client.submit({})
        client.submit({}, idempotency_key="mine")
    keys = [request.headers["idempotency-key"] for request in flaky.requests]
    assert keys[0] == keys[1] == keys[2] != keys[3] == "mine"


def test_timeouts_say_how_long(client_of: Maker) -> None:
    recorder = Recorder(httpx.ReadTimeout("slow"))
    with client_of(recorder, max_retries=0, timeout_s=3) as client, pytest.raises(errors.TimedOut, match="within 3 s"):
        client.job("job_1")
    assert recorder.requests[0].extensions["timeout"]["read"] == 3
    with pytest.raises(errors.TimedOut, match="within 7 s"):
        client_of(recorder, max_retries=0).with_options(timeout_s=7).job("job_1")
    assert recorder.requests[1].extensions["timeout"]["read"] == 7


def test_waiting_outlives_a_restart_but_not_a_death(client_of: Maker) -> None:
    away = httpx.ConnectError("refused")
    recorder = Recorder(*[away] * 6, ok(JOB | {"state": "succeeded"}))
    with client_of(recorder) as client:
        assert client.wait("job_1").state == "succeeded"
    with client_of(Recorder(away)) as client, pytest.raises(errors.Unavailable):
        client.wait("job_1")
