"""`python -m workers`: the supervisor, with a Ray of its own or joined to a cluster."""

from __future__ import annotations

import os
import signal
import sys
import threading

import structlog

from service.connection import connect
from service.observability import configure_logging
from service.settings import Settings
from service.storage import open_storage
from warploom import plugins
from warploom.errors import WarploomError
from workers import placement
from workers.supervisor import Supervisor

LEAVE_S = 5.0


def main() -> int:
    """Run until SIGTERM or SIGINT; running jobs then go back into the queue.

    `RAY_ADDRESS` (`auto`, or `host:port`) joins a cluster; without it Ray is started here and ends with this process.
    """
    try:
        settings = Settings()
    except WarploomError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    configure_logging(settings)
    log = structlog.get_logger()
    stopping = threading.Event()
    _listen(stopping)
    try:
        plugins.enable(settings.plugins)
        open_storage(settings.checkpoints_at)  # a URL that no file system knows is said now
        connections = connect(settings)
        placement.start_ray(os.environ.get("RAY_ADDRESS"), cpus=settings.rollout_cpus)
        _listen(stopping)  # again: Ray put handlers of its own in place
    except WarploomError as error:
        log.error("cannot start", reason=error.message)
        return 1
    log.info("supervisor ready")
    try:
        Supervisor(connections, settings, stopping).run()
    except placement.RayLost as error:
        log.error("cannot go on; whoever started this starts it again", reason=str(error))
        _hurry()
        return 1
    finally:
        placement.stop_ray()
        connections.close()
    log.info("supervisor ended")
    return 0


def _hurry() -> None:
    """End this process even if leaving a dead Ray takes for ever."""
    timer = threading.Timer(LEAVE_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _listen(stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


if __name__ == "__main__":
    sys.exit(main())
