"""Every test of behaviour runs on both clients: the asynchronous one behind a wrapper that waits for it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from warploom.client import AsyncClient, Client
from warploom.client.operations import Owner
from warploom.client.paging import AsyncPages

Handler = Callable[[httpx.Request], httpx.Response]
JOB = {"id": "job_1", "name": "j", "state": "queued", "spec": {}, "created_at": 1.0}


class Recorder:
    """Answers requests from a list, in order; the last answer repeats."""

    def __init__(self, *answers: httpx.Response | Exception | Handler) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        found = answer(request) if callable(answer) else answer
        # A new one each time: httpx closes what it has read.
        return httpx.Response(found.status_code, headers=found.headers, stream=found.stream)

    async def later(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Awaited:
    """An asynchronous client, or what one gave, as if it were blocking."""

    def __init__(self, thing: Any, runner: asyncio.Runner) -> None:
        self.thing, self.runner = thing, runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.thing, name)
        if not callable(value):
            return value
        return lambda *args, **options: self._now(value(*args, **options))

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return self._items(aiter(self.thing))

    def _now(self, result: Any) -> Any:
        if isinstance(result, AsyncPages):
            return AwaitedPages(result, self.runner)
        if inspect.isasyncgen(result):
            return self._items(result)
        if inspect.isawaitable(result):
            result = self.runner.run(_wait(result))
        return self._wrapped(result)

    def _wrapped(self, result: Any) -> Any:
        return Awaited(result, self.runner) if isinstance(result, Owner) else result

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                yield self._wrapped(self.runner.run(_wait(anext(items))))
        except StopAsyncIteration:
            pass


class AwaitedPages(Awaited):
    """The first page, and an iterator over all."""

    def __getattr__(self, name: str) -> Any:
        if "page" not in vars(self):
            self.page = self.runner.run(_wait(self.thing))
        return getattr(self.page, name)


async def _wait(what: Any) -> Any:
    return await what


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WARPLOOM_URL", "WARPLOOM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WARPLOOM_HOME", str(tmp_path))


@pytest.fixture(params=["blocking", "asynchronous"])
def client_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a client whose answers come from a recorder."""
    with asyncio.Runner() as runner:

        def blocking(recorder: Recorder, **options: Any) -> Any:
            client = Client("http://service", "secret-key", transport=httpx.MockTransport(recorder), **options)
            client._core.transport._sleep = recorder.pauses.append  # type: ignore[attr-defined]
            return client

        def asynchronous(recorder: Recorder, **options: Any) -> Any:
            client = AsyncClient("http://service", "secret-key", transport=httpx.MockTransport(recorder), **options)
            client._core.transport._sleep = recorder.later  # type: ignore[attr-defined]
            return Awaited(client, runner)

        yield blocking if request.param == "blocking" else asynchronous


def ok(document: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)
