"""The two Redis roles: `state` (one durable server) and `replay` (memory only; one server or several shards)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from service.bulk import BulkParser
from service.settings import Settings
from service.urls import without_password
from warploom.errors import Unavailable

Arg = str | bytes | int | float

POLL_S = 0.1
ALONE_BYTES = 16 * 1024
# Values of one read: enough to make a round trip worth it, and no more, as the server copies them all before it sends.
READ_FIRST, READ_MOST, READ_BYTES = 4, 64, 2**20
# Errors of a server that will be well again: its disk is full, it loads its data, it changes roles, a script runs long.
PASSING = ("MISCONF ", "LOADING ", "READONLY ", "MASTERDOWN ", "BUSY ")

# A shard that did not answer is left alone for so long, then asked once, briefly: nobody waits for it at every call.
REST_S = 2.0
PROBE_S = 0.5
SHARD_RETRIES = 1
AnswerT = TypeVar("AnswerT")


class RoleClient(redis.Redis):
    """A Redis client whose failures to answer are `Unavailable`, naming the role and the URL without password.

    Attributes:
        label: "state" or "replay" (`role` is a command of Redis).
        shown_url: the URL without password.
        rest_s: seconds for which nothing is sent after a failure to answer.
        away: whether it did not answer when it was last asked; always False without `rest_s`.
    """

    label: str = "redis"
    shown_url: str = ""
    rest_s: float = 0.0
    away: bool = False
    _asked_again: float = 0.0

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
        if self.away:
            self._probe()
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError, ResponseError) as error:
            if not isinstance(error, ResponseError):
                self._rest()
            known = unavailable(self.label, self.shown_url, error)
            if known is None:
                raise
            raise known from error

    def _rest(self) -> None:
        if self.rest_s:
            self.away, self._asked_again = True, time.monotonic() + self.rest_s

    def _probe(self) -> None:
        """Go on if the server is back.

        Raises:
            Unavailable: it is not, or it is not time to ask.
        """
        if time.monotonic() >= self._asked_again:
            options = {**self.connection_pool.connection_kwargs, "retry": None}
            options |= {"socket_timeout": PROBE_S, **_network(options, PROBE_S)}
            connection = self.connection_pool.connection_class(**options)
            try:
                connection.connect()
                self.away = False
                return
            except (RedisConnectionError, RedisTimeoutError):
                self._rest()
            finally:
                connection.disconnect()
        raise Unavailable(f"the {self.label} server at {self.shown_url} does not answer")

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
            if isinstance(part, Exception):
                with self.translated():
                    raise part
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
    """One client for each server; safe to share between threads (`decode_responses=False`).

    Args:
        state: of the durable server.
        replay: of the first replay server.
        more: of the others, where there are several.
    """

    state: RoleClient
    replay: RoleClient
    more: tuple[RoleClient, ...] = field(default=())

    @property
    def shards(self) -> tuple[RoleClient, ...]:
        """All replay servers."""
        return (self.replay, *self.more)

    def close(self) -> None:
        """Close all clients' connections."""
        for client in (self.state, *self.shards):
            client.close()
            client.connection_pool.disconnect()


def unavailable(label: str, shown_url: str, error: Exception) -> Unavailable | None:
    """What a failure of the driver says about the server; None when it is about the command."""
    where, said = f"the {label} server at {shown_url}", str(error)
    if not isinstance(error, ResponseError):
        return Unavailable(f"{where} does not answer: {said or type(error).__name__}")
    # Inside a script the driver sees the text only, not an error class of its own.
    if isinstance(error, OutOfMemoryError) or "OOM " in said:
        return Unavailable(f"{where} has no memory left")
    return Unavailable(f"{where} cannot serve now: {said}") if any(word in said for word in PASSING) else None


def first(clients: Sequence[RoleClient], call: Callable[[RoleClient], AnswerT]) -> AnswerT:
    """What `call` makes of the first server that answers.

    Raises:
        Unavailable: none does.
    """
    for client in clients[:-1]:
        try:
            return call(client)
        except Unavailable:
            continue
    return call(clients[-1])


def every(clients: Sequence[RoleClient], call: Callable[[RoleClient], AnswerT]) -> list[AnswerT]:
    """What `call` makes of each server that answers.

    Raises:
        Unavailable: none does.
    """
    found, last = [], None
    for client in clients:
        try:
            found.append(call(client))
        except Unavailable as error:
            last = error
    if last is not None and not found:
        raise last
    return found


def answers(client: RoleClient) -> bool:
    """Whether the server is there."""
    try:
        client.execute_command("PING")
    except Unavailable:
        return False
    return True


def connect(settings: Settings, *, wait_s: float = 30.0) -> Connections:
    """Connections to all servers, once the state server and at least one replay server answer.

    Args:
        settings: `state_url` and `replay_urls`.
        wait_s: seconds to keep trying.

    Raises:
        Unavailable: they did not answer in time; the message names a URL without the password.
    """
    shards = [_client("replay", url) for url in settings.replay_urls]
    if len(shards) > 1:
        for shard in shards:
            shard.rest_s = REST_S
            shard.set_retry(_retry(SHARD_RETRIES))
    connections = Connections(_client("state", settings.state_url), shards[0], tuple(shards[1:]))
    deadline = time.monotonic() + wait_s
    try:
        _wait_for([connections.state], deadline)
        _wait_for(connections.shards, deadline)
    except BaseException:
        connections.close()
        raise
    return connections


def _client(role: str, url: str) -> RoleClient:
    broken = [RedisConnectionError, RedisTimeoutError]
    client = RoleClient.from_url(
        url, retry=_retry(3), retry_on_error=broken, parser_class=BulkParser, **client_options(url)
    )
    assert isinstance(client, RoleClient)
    client.label = role
    client.shown_url = without_password(url)
    return client


def _retry(times: int) -> Retry:
    return Retry(ExponentialBackoff(cap=1.0, base=0.05), times)


def _wait_for(clients: Sequence[RoleClient], deadline: float) -> None:
    """Until one of them answers."""
    while True:
        try:
            every(clients, lambda client: client.execute_command("PING"))
            return
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_S)


def _network(options: Mapping[str, Any], timeout_s: float) -> dict[str, float]:
    return {"socket_connect_timeout": timeout_s} if "socket_connect_timeout" in options else {}


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
