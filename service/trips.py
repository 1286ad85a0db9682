"""Short commands of many tasks over one asynchronous connection; those that come together travel together.

A thread and a connection for each request would cost several times what the request itself does. While one round trip
is on, commands gather for the next; a lone command does not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis.asyncio
from redis._parsers.resp2 import _AsyncRESP2Parser
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from service.connection import unavailable
from service.scripts import Arg, Script
from service.urls import without_password
from warploom.errors import Unavailable

TRIES = 4
BACK_OFF_S = 0.05
# Of one round trip, connecting included.
TRIP_S = 10.0
READ_BYTES = 2**16


class _Going(NamedTuple):
    """A command on its way, as bytes, and who waits for its reply."""

    packed: list[bytes]
    done: asyncio.Future[Any]


class Trips:
    """One connection to a server. For commands that may be run twice: a lost connection is tried again.

    Args:
        label: of the server, for errors: "state" or "replay".
        url: the server's.
    """

    def __init__(self, label: str, url: str) -> None:
        self._label, self._url = label, url
        self._going: list[_Going] = []
        self._sending: list[_Going] = []

    def open(self) -> None:
        """Begin; within the event loop that all commands will come from."""
        self._connection = connection(self._url)
        self._some = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; whoever waits is told that the service is going away."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        _fail([*self._sending, *self._going], Unavailable("this server is stopping; try again"))
        await self._connection.disconnect()

    async def run(self, *command: Any) -> Any:
        """The reply to one command.

        Raises:
            Unavailable: no answer, or no memory left on the server.
            ResponseError: the server refuses the command.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._going.append(_Going(self._connection.pack_command(*command), done))
        self._some.set()
        return await done

    async def find(self, *command: Any) -> Any:
        """As `run`, of one server or of all: the reply of the first that has something there."""
        return await self.run(*command)

    def well(self) -> list[int]:
        """Numbers of the servers that are not known to be away; of all when none is well."""
        return [0]

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """What a script returns. Raises as `run` does."""
        try:
            return await self.run(*script.command(keys, args))
        except NoScriptError:
            return await self.run("EVAL", script.text, len(keys), *keys, *args)

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            self._sending, self._going = self._going, []
            try:
                await self._trip()
            except Exception as error:  # whoever waits gets it, and the next trip starts anew
                _fail(self._sending, self._translated(error))
                await self._connection.disconnect(nowait=True)

    async def _trip(self) -> None:
        for tried in range(TRIES):
            try:
                async with asyncio.timeout(TRIP_S):
                    await self._exchange([one for one in self._sending if not one.done.done()])
                return
            except TimeoutError:
                raise  # a server that is silent now will be so again
            except (RedisConnectionError, OSError):
                if tried + 1 == TRIES:
                    raise
                await asyncio.sleep(BACK_OFF_S * 2**tried)

    async def _exchange(self, going: Sequence[_Going]) -> None:
        await self._connection.send_packed_command([piece for one in going for piece in one.packed], check_health=False)
        for one in going:
            try:
                reply = await self._connection.read_response()
            except ResponseError as error:
                _fail([one], self._translated(error))
            else:
                if not one.done.done():
                    one.done.set_result(reply)

    def _translated(self, error: Exception) -> Exception:
        if not isinstance(error, RedisError | OSError):
            return error
        return unavailable(self._label, without_password(self._url), error) or error


def connection(url: str) -> Any:
    """One asynchronous connection, without the driver's pool and repeats, which take longer than a small command.

    It has no timeout of its own.
    """
    options = {"socket_connect_timeout": 5, "socket_timeout": None, "protocol": 2, "parser_class": _Parser}
    pool: Any = redis.asyncio.ConnectionPool.from_url(url, **options)
    return pool.make_connection()


class _Parser(_AsyncRESP2Parser):
    """Takes what there is from the stream, and not line by line, which is ten times faster for many small values.

    A read that is cancelled loses its place; the connection is closed then anyway.
    """

    async def read_response(self, disable_decoding: bool = False) -> Any:
        """The next reply."""
        if not self._connected:
            raise RedisConnectionError(SERVER_CLOSED_CONNECTION_ERROR)
        return await self._read_response(disable_decoding)

    async def _readline(self) -> bytes:
        while (end := self._buffer.find(b"\r\n", self._pos)) < 0:
            await self._more()
        line, self._pos = self._buffer[self._pos : end], end + 2
        return line

    async def _read(self, length: int) -> bytes:
        missing = self._pos + length + 2 - len(self._buffer)
        if missing > READ_BYTES:
            await self._more(missing)
        while len(self._buffer) - self._pos < length + 2:
            await self._more()
        value = self._buffer[self._pos : self._pos + length]
        self._pos += length + 2
        return value

    async def _more(self, exactly: int | None = None) -> None:
        assert self._stream is not None
        try:
            more = await (self._stream.readexactly(exactly) if exactly else self._stream.read(READ_BYTES))
        except asyncio.IncompleteReadError:
            more = b""
        if not more:
            raise RedisConnectionError(SERVER_CLOSED_CONNECTION_ERROR)
        self._buffer, self._pos = self._buffer[self._pos :] + more, 0


def _fail(going: Sequence[_Going], error: Exception) -> None:
    for one in going:
        if not one.done.done():
            one.done.set_exception(error)
