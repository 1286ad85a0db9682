"""The API as a process: from its settings to an orderly end."""

from __future__ import annotations

import gc
import signal
import socket
import sys

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from service.auth import KeyRing
from service.connection import connect
from service.observability import configure_logging
from service.settings import Settings
from warploom import plugins
from warploom.errors import WarploomError

# Long enough for an answer under way, short enough for a rolling update.
SHUTDOWN_S = 5


class Server(uvicorn.Server):
    """Uvicorn that tells open streams to end as soon as it is asked to stop, instead of waiting for them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.api = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: streams first, then as usual."""
        self.api.state.services.live.stop()
        await super().shutdown(sockets)


def serve() -> int:
    """Serve the API until told to stop; the exit code says whether it could start."""
    try:
        settings = Settings()
        configure_logging(settings)
        plugins.enable(settings.plugins)
        connections = connect(settings)
        given = settings.api_key.get_secret_value() if settings.api_key else None
        made = KeyRing(connections).ensure_first(given)
    except WarploomError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    if made is not None:
        sys.stderr.write(f"API key (shown this once, stored hashed): {made}\n")
    app = create_app(settings, connections)
    # All of this stays: from here on the collector looks at requests alone.
    gc.freeze()
    gc.enable()
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
        ws="none",
    )
    server = Server(config, app)
    # Uvicorn sends itself the signal again once it has stopped; an orderly end is exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    finally:
        connections.close()
    return 0 if server.started else 1
