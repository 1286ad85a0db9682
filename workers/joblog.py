"""What happens in an actor, told to the job's log: its start, its log, its warnings, and what ended it."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from service.connection import connect
from service.logs import LogStore
from service.observability import configure_logging, formatter, one_line
from service.settings import Settings
from warploom.errors import Unavailable
from workers.context import Assignment

MethodT = TypeVar("MethodT", bound=Callable[..., Any])
FLUSH_S = 0.5
MOST_WAITING = 1000


class JobLog(logging.Handler):
    """Sends records to the job's log from a thread of its own, so that nobody waits for Redis to log a line.

    Args:
        store: the logs.
        assignment: the job.
        worker: who speaks.
    """

    def __init__(self, store: LogStore, assignment: Assignment, worker: str) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(formatter(one_line))
        self._store, self._assignment, self._worker = store, assignment, worker
        self._waiting: deque[tuple[str, str]] = deque(maxlen=MOST_WAITING)
        self._lost = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="joblog", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record; when too many wait, the oldest goes."""
        try:
            message = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._lost += len(self._waiting) == MOST_WAITING
        self._waiting.append((record.levelname.lower(), message))

    def close(self) -> None:
        """Send what waits, and stop."""
        self._stop.set()
        self._thread.join(10 * FLUSH_S)
        super().close()

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if self._lost:
            lines.append(("warning", f"{self._lost} lines came too fast and were left out"))
            self._lost = 0
        owner = self._assignment
        try:
            self._store.append(owner.job_id, self._worker, owner.generation, lines)
        except Unavailable:
            self._lost += len(lines)


@contextmanager
def job_log(assignment: Assignment, worker: str) -> Iterator[None]:
    """Within this block all that the process logs, and how the block ends, goes to the job's log."""
    settings = Settings.model_validate(assignment.settings)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_logging(settings)
    connections = connect(settings)
    handler = JobLog(LogStore(connections), assignment, worker)
    root.setLevel(min(root.level, logging.INFO))
    root.addHandler(handler)
    logging.captureWarnings(True)
    own = logging.getLogger("warploom.job")
    try:
        own.info("starts, generation %d", assignment.generation)
        yield
        own.info("is done")
    except Exception:
        own.exception("ends with an error")
        raise
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        handler.close()
        connections.close()


def logged(name: Callable[[Any], str]) -> Callable[[MethodT], MethodT]:
    """Run a method of an actor within `job_log`.

    Args:
        name: the worker's name, from the actor, which has its job in `_assignment`.
    """

    def around(method: MethodT) -> MethodT:
        @functools.wraps(method)
        def run(self: Any, *args: Any, **options: Any) -> Any:
            with job_log(self._assignment, name(self)):
                return method(self, *args, **options)

        return run  # type: ignore[return-value]

    return around
