"""Large replies of Redis, read straight into their place.

The driver gathers a reply in pieces of 64 KiB in a growing buffer and copies it out of there, which for values of
megabytes is several times slower than the socket.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from redis._parsers.resp2 import _RESP2Parser
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR, SocketBuffer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.utils import SENTINEL

LARGE_BYTES = 128 * 1024


class _BulkBuffer(SocketBuffer):
    """The driver's buffer, which large values pass by."""

    def read(self, length: int, timeout: Any = SENTINEL) -> bytes:
        if length < LARGE_BYTES or timeout is not SENTINEL:
            return bytes(super().read(length, timeout))
        value = BytesIO(bytes(length))  # gives its bytes away without a copy
        with value.getbuffer() as view:
            filled = self._buffer.readinto(view)
            try:
                while filled < length:
                    got = self._sock.recv_into(view[filled:])
                    if not got:
                        raise RedisConnectionError(SERVER_CLOSED_CONNECTION_ERROR)
                    filled += got
            except TimeoutError:
                raise RedisTimeoutError("Timeout reading from socket") from None
        super().read(0)  # the end of line
        return value.getvalue()


class BulkParser(_RESP2Parser):
    """A parser for connections that carry values of megabytes (`parser_class` of the driver's connections)."""

    def on_connect(self, connection: Any) -> None:
        """Called by the driver when the socket connects."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        self._buffer = _BulkBuffer(connection._sock, self.socket_read_size, connection.socket_timeout)
