"""Closed-loop clients over raw sockets: each sends its next request when the last one is answered.

An HTTP library spends about a millisecond of CPU a request, as much as the service that is to be measured; reading the
few headers that matter costs a tenth of it. `Load.generator_ms` says what it did cost.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_seeds = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request: which task, when it was sent, how long it took, what came back."""

    task: int
    sent: float
    seconds: float
    status: int
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The document; parsed when it is asked for, and so not while the clock runs."""
        return dict(json.loads(self.raw))


@dataclass(slots=True)
class Load:
    """What a number of clients saw.

    Args:
        clients: how many asked at the same time.
        answers: all answers, in the order of their ends.
        seconds: from the first request to the last answer.
        generator_ms: processor time of this process a request.
        cpu_ms: that of the service's parts.
    """

    clients: int
    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    generator_ms: float = 0.0
    cpu_ms: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return len(self.answers) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share of the answers came."""
        ordered = sorted(answer.seconds for answer in self.answers)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Target:
    """A route of a running service, and ready-made requests for it.

    Args:
        url: of the service.
        key: its API key.
        path: of the route.
        bodies: JSON documents; each request gets a seed that no other ever had, so that none is answered from
            what is kept.
    """

    def __init__(self, url: str, key: str, path: str, bodies: Sequence[dict[str, Any]]) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.count = len(bodies)
        self._bodies = [json.dumps(body)[:-1].encode() for body in bodies]
        self._head = (
            f"HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        )
        self._path = path

    def request(self, task: int) -> bytes:
        """The bytes of a request for this task."""
        body = self._bodies[task] + b', "seed": %d}' % next(_seeds)
        return f"POST {self._path} {self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def look(self, path: str) -> bytes:
        """The bytes of a request for an answer that is not there yet."""
        return f"GET {path} {self._head}\r\n".encode()


class Client:
    """One connection, kept open."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._target.host, self._target.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, task: int) -> Answer:
        """Send one task and wait for its answer, also where the service says that it will take longer."""
        sent = time.perf_counter()
        status, raw = await self._exchange(self._target.request(task))
        while status == 202:
            await asyncio.sleep(0.05)
            status, raw = await self._exchange(self._target.look(f"/v1/adaptations/{json.loads(raw)['id']}"))
        return Answer(task, sent, time.perf_counter() - sent, status, raw)

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        return int(head.split(b" ", 2)[1]), await self._reader.readexactly(length)


async def press(target: Target, clients: int, seconds: float, *, least: int = 1) -> Load:
    """`clients` at once for about `seconds`, each at least `least` requests; no answer is waited for in vain."""
    load = Load(clients)
    begin, cpu = time.perf_counter(), time.process_time()

    async def one(number: int) -> None:
        async with Client(target) as client:
            done = 0
            while done < least or time.perf_counter() - begin < seconds:
                load.answers.append(await client.ask((number + done * clients) % target.count))
                done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(one(number))
    load.seconds = time.perf_counter() - begin
    load.generator_ms = 1000 * (time.process_time() - cpu) / len(load.answers)
    return load
