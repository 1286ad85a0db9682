"""What the workers of a job say: one capped stream for each job, on the replay server, with a lifetime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from service import keys
from service.connection import Connections, every
from service.lifecycle import Clock, clock_arg
from service.redact import redacted
from service.scripts import Script
from warploom.records import LogLine

LINES_KEPT = 5000
LONGEST = 4000
LEVELS = ("debug", "info", "warning", "error", "critical")

_log = Script("log")


class LogStore:
    """Lines of workers, about the last 5000 of a job. Secrets are taken out before a line is stored.

    They go to all replay servers that answer, and are read from one.

    Args:
        connections: both Redis roles.
        clock: seconds since the epoch, for tests; default: the replay server's own clock.
    """

    def __init__(self, connections: Connections, *, clock: Clock | None = None) -> None:
        self._shards = connections.shards
        self._clock = clock

    def append(self, job_id: str, worker: str, generation: int, lines: Iterable[tuple[str, str]]) -> None:
        """Add lines.

        Args:
            job_id: the job.
            worker: who says it (`learner`, `rollout-0`…).
            generation: of its run.
            lines: level and message of each; a long message is cut.

        Raises:
            Unavailable: the replay server does not answer.
        """
        told = [part for level, message in lines for part in (level, clipped(redacted(message)))]
        if told:
            head: list[str | int] = [clock_arg(self._clock), LINES_KEPT, keys.LOG_TTL_S, worker, generation]
            every(self._shards, lambda shard: _log(shard, [log_key(job_id)], [*head, *told]))

    def tail(self, job_id: str, count: int, worker: str | None = None, level: str | None = None) -> list[LogLine]:
        """The last lines, oldest first.

        Args:
            job_id: the job.
            count: most lines.
            worker: only those of this worker.
            level: only those of this level or above.
        """
        entries = max(self._read(job_id), key=len)  # a server that was away lacks some
        found: list[LogLine] = []
        for entry_id, fields in entries:
            if len(found) == count:
                break
            line = parse_line(entry_id, fields)
            if fits(line, worker, level):
                found.append(line)
        return found[::-1]

    def last_id(self, job_id: str) -> str:
        """The id of the last line; that before any when there is none."""
        entries = self._read(job_id, "COUNT", 1)[0]
        return entries[0][0].decode() if entries else "0-0"

    def _read(self, job_id: str, *options: str | int) -> list[list[tuple[bytes, Mapping[bytes, bytes]]]]:
        """The lines on each server that answers, the last one first."""
        return every(
            self._shards, lambda shard: shard.execute_command("XREVRANGE", log_key(job_id), "+", "-", *options)
        )


def log_key(job_id: str) -> str:
    """The stream that holds a job's log (on the replay server)."""
    return keys.logs(job_id)


def fits(line: LogLine, worker: str | None, level: str | None) -> bool:
    """Whether a line is of this worker, and of this level or above."""
    if worker not in (None, line.worker):
        return False
    return level is None or line.level not in LEVELS or LEVELS.index(line.level) >= LEVELS.index(level)


def parse_line(entry_id: bytes, fields: Mapping[bytes, bytes]) -> LogLine:
    """A raw stream entry as a line."""
    return LogLine(
        id=entry_id.decode(),
        at=int(fields[b"at"]) / 1000,
        worker=fields[b"worker"].decode(),
        generation=int(fields[b"generation"]),
        level=fields[b"level"].decode(),
        message=fields[b"message"].decode(),
    )


def clipped(message: str) -> str:
    """The message, cut where it gets long: the end of a trace says more than its middle."""
    if len(message) <= LONGEST:
        return message
    half = LONGEST // 2
    return f"{message[:half]}\n… {len(message) - 2 * half} characters left out …\n{message[-half:]}"
