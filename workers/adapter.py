"""An adapter actor: answers adaptation requests in micro-batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import structlog
import torch

from service.adaptations import AdaptationQueue, AdaptationRequest, Outcome
from service.connection import Connections, connect
from service.fleet import Fleet
from service.kept import Kept
from service.models import ModelStore
from service.settings import Settings
from service.sharded_adaptations import queue_on
from warploom import plugins
from warploom.adaptation import ServedModel, Support
from warploom.errors import NotFound, TimedOut, Unavailable, WarploomError
from workers import answers
from workers.intake import Intake
from workers.warm import WarmModels

log = structlog.get_logger()
BEAT_S = 5.0
RENEW_S = 1.0
AWAY_S = 1.0
# Numbers in the inputs of one call; keeps the memory of a batch of large requests in bounds.
NUMBERS_AT_ONCE = 2**22

Asked = tuple[AdaptationRequest, Support]
Again = tuple[AdaptationRequest, Kept]


class Adapter:
    """One adapter actor.

    Args:
        settings: as plain values (`workers.context.shipped`).
        name: its name among the adapters.
    """

    def __init__(self, settings: dict[str, Any], name: str) -> None:
        self._settings = Settings.model_validate(settings)
        plugins.enable(self._settings.plugins)
        self._name = name

    def run(self) -> None:
        """Answer requests until killed."""
        torch.set_num_threads(1)
        self.attach(connect(self._settings))
        intake = Intake(self._queue, self._name, self._settings.adapt_batch)
        threading.Thread(target=self._renew, daemon=True).start()
        batch: list[AdaptationRequest] = []
        while True:
            try:
                batch = self.turn(intake, batch)
                if batch:
                    time.sleep(AWAY_S)
            except Unavailable as error:
                log.warning("redis is away", error=error.message)
                time.sleep(AWAY_S)

    def turn(self, intake: Intake, batch: list[AdaptationRequest]) -> list[AdaptationRequest]:
        """Answer the batch that is left from before, or the next one; returns what is left when Redis goes away.

        What is at hand stays this adapter's as long as it says so every second: nobody else would take it over. An
        answer that had arrived is not given again.
        """
        batch = batch or intake.next()
        begin = time.monotonic()
        try:
            self.serve(batch)
        except Unavailable as error:
            log.warning("redis went away before all answers had arrived", error=error.message)
            return [request for request in batch if request.deadline > time.time()]
        if batch:
            intake.done(len(batch), time.monotonic() - begin)
        return []

    def attach(self, connections: Connections) -> None:
        """Work on these servers."""
        settings = self._settings
        self._queue = queue_on(
            connections, ttl_s=settings.adaptation_ttl_s, budget_bytes=settings.adaptation_budget_bytes
        )
        self._warm = WarmModels(ModelStore(connections), settings.adapter_models_bytes)
        self._fleet = Fleet(connections)

    def serve(self, requests: Sequence[AdaptationRequest]) -> None:
        """Answer these requests; those that go into one call together, each call's answers as soon as it is done."""
        groups: dict[tuple[object, ...], list[Asked]] = {}
        fresh, again = self._known(requests)
        for request in fresh:
            with self._guarded([request]):
                support = answers.support_of(request)
                model = self._warm.get(request.model, request.version)
                key = (request.model, request.version, *model.group(support))
                groups.setdefault(key, []).append((request, support))
        for group in groups.values():
            for part in self._parts(group):
                self._adapt(part)
        self._predict(again)

    def _known(self, requests: Sequence[AdaptationRequest]) -> tuple[list[AdaptationRequest], list[Again]]:
        """Those that need an adaptation, and those for whose content or id there is one."""
        names = [request.adaptation or request.before for request in requests]
        kept = dict(zip(filter(None, names), self._queue.kept.get_many([n for n in names if n]), strict=True))
        fresh, again = [], []
        for request, name in zip(requests, names, strict=True):
            found = kept.get(name)
            if found is not None:
                again.append((request, Kept(*found)))
            elif request.op == "predict":
                self._queue.fail(request, NotFound(f"no adaptation {name!r}: it has expired; adapt again"))
            else:
                fresh.append(request)
        return fresh, again

    def _parts(self, group: Sequence[Asked]) -> Iterator[list[Asked]]:
        """A group in the portions in which it is computed."""
        model = self._warm.get(group[0][0].model, group[0][0].version)
        most = max(1, NUMBERS_AT_ONCE // max(1, group[0][1].numbers())) if model.vectorises else 1
        for start in range(0, len(group), most):
            part = []
            for request, support in group[start : start + most]:
                if request.deadline < time.time():
                    self._queue.fail(request, TimedOut(f"{request.id} was not begun before its deadline"))
                else:
                    part.append((request, support))
            if part:
                yield part

    def _adapt(self, group: Sequence[Asked]) -> None:
        requests = [request for request, _ in group]
        with self._guarded(requests):
            model = self._warm.get(requests[0].model, requests[0].version)
            found = model.adapt([support for _, support in group])
            expires_at = time.time() + self._settings.adaptation_ttl_s
            self._queue.finish(
                [answers.adapted(request, answer, expires_at) for request, answer in zip(requests, found, strict=True)]
            )

    def _predict(self, again: Sequence[Again]) -> None:
        """Predictions with kept parameters, those of equal shape in one call."""
        groups: dict[tuple[object, ...], list[tuple[Again, torch.Tensor]]] = {}
        for request, kept in again:
            with self._guarded([request]):
                x_Q = answers.queries_of(request)
                key = (request.model, request.version, x_Q is None, *(() if x_Q is None else x_Q.shape))
                groups.setdefault(key, []).append(((request, kept), torch.empty(0) if x_Q is None else x_Q))
        for group in groups.values():
            with self._guarded([request for (request, _), _ in group]):
                self._queue.finish(self._predicted(group))

    def _predicted(self, group: Sequence[tuple[Again, torch.Tensor]]) -> list[Outcome]:
        first = group[0][0][0]
        model: ServedModel = self._warm.get(first.model, first.version)
        asked = [one for one, _ in group]
        if not group[0][1].numel():
            return [answers.again(request, kept, None) for request, kept in asked]
        outputs_TQ = model.predict_many(
            [answers.weights_of(kept.blob) for _, kept in asked], torch.stack([x_Q for _, x_Q in group])
        )
        return [answers.again(*one, outputs_Q) for one, outputs_Q in zip(asked, outputs_TQ, strict=True)]

    def _guarded(self, requests: Iterable[AdaptationRequest]) -> _Guard:
        return _Guard(self._queue, requests)

    def _renew(self) -> None:
        """Say every second that the requests at hand are being worked on, and now and then that this one is alive."""
        beaten = 0.0
        while True:
            with suppress(Unavailable):
                self._queue.renew(self._name)
                if time.monotonic() - beaten > BEAT_S:
                    self._fleet.beat("adapter", self._name, 3 * BEAT_S)
                    beaten = time.monotonic()
            time.sleep(RENEW_S)


class _Guard:
    """Whatever the block raises becomes the requests' answer, and the adapter lives on."""

    def __init__(self, queue: AdaptationQueue, requests: Iterable[AdaptationRequest]) -> None:
        self._queue, self._requests = queue, requests

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None or isinstance(error, Unavailable) or not isinstance(error, Exception):
            return False
        if not isinstance(error, WarploomError):
            log.error("adaptation failed", exc_info=error)
            error = WarploomError(f"adaptation failed: {type(error).__name__}: {error}")
        self._queue.finish([Outcome(request, error) for request in self._requests])
        return True
