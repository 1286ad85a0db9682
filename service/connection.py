"""The two Redis roles: `state` (durable) and `replay` (memory only)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from service.bulk import BulkParser
from service.settings import Settings
from warploom.errors import Unavailable

Arg = str | bytes | int | float

POLL_S = 0.1
ALONE_BYTES = 16 * 1024
# Values of one read: enough to make a round trip worth it, and no more, as the server copies them all before it sends.
READ_FIRST, READ_MOST, READ_BYTES = 4, 64, 2**20
# Errors of a server that will be well again: its disk is full, it loads its data, it changes roles, a script runs long.
PASSING = ("MISCONF ", "LOADING ", "READONLY ", "MASTERDOWN ", "BUSY ")


class RoleClient(redis.Redis):
    """A Redis client whose failures to answer are `Unavailable`, naming the role and the URL without password.

    Attributes:
        label: "state" or "replay" (`role` is a command of Redis).
        shown_url: the URL without password.
    """

    label: str = "redis"
    shown_url: str = ""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command.

        Raises:
            Unavailable: no answer, or no memory left on the server.
        """
        with self.translated():
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's failures inside the block into `Unavailable` (pipelines need it by hand)."""
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError, ResponseError) as error:
            known = unavailable(self.label, self.shown_url, error)
            if known is None:
                raise
            raise known from error

    def get_large(self, key: str) -> bytes | None:
        """The string at `key`; None when it is absent."""
        value: bytes | None = self.execute_command("GET", key)
        return value

    def get_many(self, keys: Sequence[str]) -> list[bytes] | None:
        """The strings at `keys`, in order; None when one is absent."""
        values: list[bytes] = []
        most = READ_FIRST
        while len(values) < len(keys):
            (part,) = self.exchange(packed([("MGET", *keys[len(values) : len(values) + most])]), 1)
            if any(value is None for value in part):
                return None
            values += part
            most = max(1, min(READ_MOST, READ_BYTES // max(1, len(part[-1]))))
        return values

    def exchange(self, request: Sequence[bytes], replies: int) -> list[Any]:
        """Send what `packed` made and read the answers, in one round trip; errors of the server are among them.

        Sent again after a broken connection, like any other command.

        Raises:
            Unavailable: no answer.
        """
        pool = self.connection_pool
        with self.translated():
            connection: Any = pool.get_connection()
            try:
                answers: list[Any] = connection.retry.call_with_retry(
                    lambda: _exchanged(connection, request, replies), lambda _: connection.disconnect()
                )
                return answers
            finally:
                pool.release(connection)

    def now_ms(self) -> int:
        """The server's clock, in milliseconds since the epoch."""
        seconds, micros = self.execute_command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def packed(commands: Iterable[Sequence[Arg]]) -> list[bytes]:
    """Commands in the protocol's own bytes; large values are pieces of their own, which are not copied.

    The driver does the same, several times slower where a command has many arguments.
    """
    pieces: list[bytes] = []
    small: list[bytes] = []
    for command in commands:
        small.append(b"*%d\r\n" % len(command))
        for arg in command:
            raw = arg if isinstance(arg, bytes) else str(arg).encode()
            small.append(b"$%d\r\n" % len(raw))
            if len(raw) < ALONE_BYTES:
                small += (raw, b"\r\n")
            else:
                pieces += (b"".join(small), raw)
                small = [b"\r\n"]
    pieces.append(b"".join(small))
    return pieces


def _exchanged(connection: Any, request: Sequence[bytes], replies: int) -> list[Any]:
    connection.send_packed_command(request)
    answers = []
    for _ in range(replies):
        try:
            answers.append(connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


@dataclass(frozen=True, slots=True)
class Connections:
    """One client for each role; safe to share between threads (`decode_responses=False`)."""

    state: RoleClient
    replay: RoleClient

    def close(self) -> None:
        """Close both clients' connections."""
        for client in (self.state, self.replay):
            client.close()
            client.connection_pool.disconnect()


def unavailable(label: str, shown_url: str, error: Exception) -> Unavailable | None:
    """What a failure of the driver says about the server; None when it is about the command."""
    where, said = f"the {label} server at {shown_url}", str(error)
    if not isinstance(error, ResponseError):
        return Unavailable(f"{where} does not answer: {said or type(error).__name__}")
    # Inside a script the driver sees the text only, not an error class of its own.
    if "OOM " in said:
        return Unavailable(f"{where} has no memory left")
    return Unavailable(f"{where} cannot serve now: {said}") if any(word in said for word in PASSING) else None


def connect(settings: Settings, *, wait_s: float = 30.0) -> Connections:
    """Connections to both servers, once both answer.

    Args:
        settings: `state_url` and `replay_url`.
        wait_s: seconds to keep trying.

    Raises:
        Unavailable: a server did not answer in time; the message names its URL without the password.
    """
    connections = Connections(_client("state", settings.state_url), _client("replay", settings.replay_url))
    deadline = time.monotonic() + wait_s
    try:
        for client in (connections.state, connections.replay):
            _wait_for(client, deadline)
    except BaseException:
        connections.close()
        raise
    return connections


def _client(role: str, url: str) -> RoleClient:
    retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), 3)
    broken = [RedisConnectionError, RedisTimeoutError]
    client = RoleClient.from_url(
        url, retry=retry, retry_on_error=broken, parser_class=BulkParser, **client_options(url)
    )
    assert isinstance(client, RoleClient)
    client.label = role
    client.shown_url = without_password(url)
    return client


def _wait_for(client: RoleClient, deadline: float) -> None:
    while True:
        try:
            client.execute_command("PING")
            return
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_S)


def without_password(url: str) -> str:
    """The URL with its password replaced by `***`."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{name}:***@{host}"))


def client_options(url: str) -> dict[str, Any]:
    """Options that every client of ours uses, synchronous or `redis.asyncio`.

    A blocking command must ask for less than `socket_timeout` seconds at a time.

    Args:
        url: the server's; on a Unix socket (`unix:///path`) there is no network to look after.
    """
    network = {"socket_connect_timeout": 5.0, "socket_keepalive": True}
    return {
        "decode_responses": False,
        "protocol": 2,  # one reply shape for every server version that we support
        "health_check_interval": 15,
        "socket_timeout": 10.0,
        **({} if url.startswith("unix:") else network),
    }
