"""The API over real Redis servers, with a stand-in for the adapters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI

from api.app import create_app
from service.adaptations import AdaptationRequest
from service.auth import KeyRing
from service.connection import Connections
from service.fleet import Fleet
from service.models import ModelStore
from service.processes import free_port
from service.settings import Settings
from service.sharded_adaptations import queue_on
from tests.support.waiting import wait_until
from warploom.errors import TrainingFailed
from warploom.wire import decode, encode

KEY = "wlk_0123456789abcdef0123"


class Api:
    """An application without a network between: every request runs in the application's own event loop."""

    def __init__(self, app: FastAPI, headers: dict[str, str] | None = None) -> None:
        self.app = app
        self._headers = headers
        self._override: dict[Any, Any] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Api:
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._stack.enter_context(self._portal.wrap_async_context_manager(self.app.router.lifespan_context(self.app)))
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://api", headers=self._headers, timeout=60)
        return self

    def __exit__(self, *details: Any) -> None:
        self._portal.call(self._http.aclose)
        self._stack.__exit__(*details)

    def as_key(self, secret: str) -> Api:
        """The same running application, asked with another key."""
        other = Api(self.app)
        other._portal, other._http = self._portal, self._http
        other._override = {"Authorization": f"Bearer {secret}"}
        return other

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        options["headers"] = {**self._override, **(options.get("headers") or {})}
        if isinstance(options.get("content"), Iterator):
            options["content"] = _later(options["content"])
        return self._portal.call(partial(self._http.request, method, path, **options))

    def raw(self, method: str, path: str, headers: dict[str, str], receive: Any) -> tuple[int, dict[str, str], bytes]:
        """One request without an HTTP client between: status, headers, body. `receive` is ASGI's."""
        return self._portal.call(self._raw, method, path, headers, receive)

    async def _raw(
        self, method: str, path: str, headers: dict[str, str], receive: Any
    ) -> tuple[int, dict[str, str], bytes]:
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        merged = {**(self._headers or {}), **self._override, **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in merged.items()],
            "client": ("127.0.0.1", 1),
            "server": ("api", 80),
        }
        await self.app(scope, receive, send)
        start, *rest = messages
        found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return start["status"], found, b"".join(message.get("body", b"") for message in rest)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)


async def _later(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.fixture
def settings(redis_settings: Settings) -> Settings:
    limits = {"max_body_bytes": 200_000, "max_steps": 50, "max_support_rows": 100, "adapt_wait_s": 20.0}
    limits |= {"allowed_hosts": frozenset({"example.com", "127.0.0.1"})}
    return redis_settings.model_copy(update=limits)


@pytest.fixture
def app(settings: Settings, connections: Connections) -> FastAPI:
    KeyRing(connections).ensure_first(KEY)
    return create_app(settings, connections)


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[Api]:
    with Api(app) as client:
        yield client


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """The application behind a socket."""
    port = free_port("127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, 30, what="the API")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(app: FastAPI) -> Iterator[Api]:
    with Api(app, {"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture
def spec() -> dict[str, Any]:
    return {"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp", "training": {"rounds": 3}}


def register(connections: Connections, name: str, **changes: Any) -> None:
    """A model that takes 2x2 images of three classes, unless changed."""
    facts: dict[str, Any] = {
        "kind": "classification",
        "input_shape": [1, 2, 2],
        "outputs": 3,
        "parameters": 12,
        "default_steps": 5,
        "default_lr": 0.1,
        "metrics": {"accuracy": 0.9},
        "spec": {},
        "once": name,
    }
    ModelStore(connections).register(name, encode("model", {"w": np.ones(3)}), **facts | changes)


@pytest.fixture
def images(connections: Connections) -> str:
    register(connections, "images")
    return "images"


@pytest.fixture
def waves(connections: Connections) -> str:
    register(connections, "waves", kind="regression", input_shape=[1], outputs=1, metrics={"loss": 0.2})
    return "waves"


class FakeAdapter:
    """Answers adaptation requests: class i of a query is the integer part of its first number."""

    def __init__(self, connections: Connections) -> None:
        self.queue = queue_on(connections)
        self.connections = connections
        self.requests: list[AdaptationRequest] = []
        self.failing = False
        self.diverging = False
        self.deaf = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> FakeAdapter:
        Fleet(self.connections).beat("adapter", "fake", 60)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for request in [] if self.deaf else self.queue.read("fake", 8, 50):
                self.requests.append(request)
                if self.failing:
                    self.queue.fail(request, TrainingFailed("the fake was told to fail"))
                else:
                    self.queue.answer(request, self._answer(request))

    def _answer(self, request: AdaptationRequest) -> bytes:
        arrays = decode("support", request.payload)[0]
        outputs = {}
        if "query_x" in arrays:
            first = arrays["query_x"].reshape(len(arrays["query_x"]), -1)[:, 0]
            model = ModelStore(self.connections).get(request.model, request.version)
            regression = model.kind == "regression"
            values = first[:, None] if regression else np.eye(model.outputs)[first.astype(int)]
            outputs = {"outputs": (values * (np.nan if self.diverging else 1)).astype(np.float32)}
        if request.op == "predict":
            return encode("prediction", outputs)
        record = {
            "id": request.id,
            "model": request.model,
            "version": request.version,
            "steps": request.steps,
            "lr": request.lr,
            "losses": [1.0, 0.5],
            "support_accuracy": 1.0,
            "expires_at": request.deadline + 3600,
        }
        self.queue.kept.keep(request.id, record, encode("adapted", {"w": np.ones(1)}))
        return encode("adaptation", outputs, record)


@pytest.fixture
def adapter(connections: Connections) -> Iterator[FakeAdapter]:
    with FakeAdapter(connections) as adapter:
        yield adapter
