"""The supervisor: claims jobs and sweeps, runs each in a thread, keeps adapters alive."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Protocol

import structlog

from service.connection import Connections
from service.fleet import Fleet
from service.jobs import JobStore
from service.settings import Settings
from service.sharded_adaptations import queue_on
from service.sweeps import SweepStore
from warploom.errors import Unavailable
from workers import placement
from workers.adapter import Adapter
from workers.context import shipped
from workers.run import JobRun
from workers.scaling import Scale
from workers.sweep import SweepRun

log = structlog.get_logger()
LOOK_S = 0.25
BEAT_S = 5.0
JOIN_S = 20.0


class _Runnable(Protocol):
    def run(self) -> None: ...


class Supervisor:
    """Claims what is queued, as long as it may run more at once.

    Args:
        connections, settings: the service.
        stopping: set it to end `run` in good order: running jobs go back into the queue.
    """

    def __init__(self, connections: Connections, settings: Settings, stopping: threading.Event) -> None:
        self._connections, self._settings, self._stopping = connections, settings, stopping
        self._jobs, self._sweeps = JobStore(connections), SweepStore(connections)
        self._fleet = Fleet(connections)
        self._queue = queue_on(connections)
        self._name = f"{socket.gethostname()}-{time.time_ns():x}"
        self._threads: list[threading.Thread] = []
        self._adapters: dict[str, tuple[Any, Any]] = {}
        self._born = 0
        most = settings.adapters if settings.adapters_most is None else settings.adapters_most
        self._scale = Scale(settings.adapters, most, each=2 * settings.adapt_batch)

    def run(self) -> None:
        """Until `stopping` is set.

        Raises:
            RayLost: Ray died; only a new process can start another.
        """
        beaten = 0.0
        while not self._stopping.wait(LOOK_S):
            placement.check_ray()
            try:
                if time.monotonic() - beaten > BEAT_S:
                    self._fleet.beat("supervisor", self._name, 3 * BEAT_S)
                    beaten = time.monotonic()
                self._keep_adapters()
                self._claim()
            except Unavailable as error:
                log.warning("redis is away", error=error.message)
        self._end()

    def _claim(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= self._settings.jobs_at_once:
            return
        job = self._jobs.claim(self._name, self._settings.lease_s)
        if job is not None:
            log.info("job claimed", job=job.job.id, generation=job.generation)
            self._start(JobRun(self._connections, self._settings, job, self._stopping), job.job.id)
            return
        sweep = self._sweeps.claim(self._name, self._settings.lease_s)
        if sweep is not None:
            log.info("sweep claimed", sweep=sweep.sweep.id, generation=sweep.generation)
            self._start(SweepRun(self._connections, self._settings, sweep, self._stopping), sweep.sweep.id)

    def _start(self, run: _Runnable, name: str) -> None:
        thread = threading.Thread(target=run.run, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _keep_adapters(self) -> None:
        for future in placement.finished([future for _, future in self._adapters.values()], 0):
            name = next(n for n, (_, f) in self._adapters.items() if f is future)
            del self._adapters[name]
            try:
                placement.result(future)
            except Exception as error:
                log.warning("adapter lost", adapter=name, reason=str(error))
            self._queue.release(name)
        wanted = self._scale.wanted(self._queue.pending(), time.monotonic())
        while len(self._adapters) > wanted:
            name, (actor, _) = self._adapters.popitem()
            placement.kill(actor)
            self._queue.release(name)
        while len(self._adapters) < wanted:
            name = f"{self._name}-{self._born}"
            self._born += 1
            actor = placement.start_actor(Adapter, shipped(self._settings), name, cpus=0.0)
            self._adapters[name] = (actor, placement.call(actor, "run"))

    def _end(self) -> None:
        for thread in self._threads:
            thread.join(JOIN_S)
        for actor, _ in self._adapters.values():
            placement.kill(actor)
        self._fleet.leave("supervisor", self._name)
