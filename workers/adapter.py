"""An adapter actor: keeps trained models warm, and answers adaptation requests in micro-batches."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
import torch

from service.adaptations import AdaptationQueue, AdaptationRequest
from service.connection import connect
from service.fleet import Fleet
from service.models import ModelStore
from service.settings import Settings
from warploom import wire
from warploom.adaptation import Answer, ServedModel, Support
from warploom.codec import pack_tensors, unpack_tensors
from warploom.errors import InvalidInput, Unavailable, WarploomError
from warploom.records import Adaptation

log = structlog.get_logger()
BLOCK_MS = 1000
WARM_MODELS = 8
BEAT_S = 5.0


class Adapter:
    """One adapter actor.

    Args:
        settings: as plain values (`workers.context.shipped`).
        name: its name among the adapters.
    """

    def __init__(self, settings: dict[str, Any], name: str) -> None:
        self._settings = Settings.model_validate(settings)
        self._name = name
        self._warm: OrderedDict[tuple[str, int], ServedModel] = OrderedDict()

    def run(self) -> None:
        """Answer requests until killed."""
        torch.set_num_threads(1)
        connections = connect(self._settings)
        self._models = ModelStore(connections)
        self._queue = AdaptationQueue(connections, ttl_s=self._settings.adaptation_ttl_s)
        fleet, beaten = Fleet(connections), 0.0
        while True:
            try:
                if time.monotonic() - beaten > BEAT_S:
                    fleet.beat("adapter", self._name, 3 * BEAT_S)
                    beaten = time.monotonic()
                self.serve(self._queue.read(self._name, self._settings.adapt_batch, BLOCK_MS))
            except Unavailable as error:
                log.warning("redis is away", error=error.message)
                time.sleep(1.0)

    def serve(self, requests: Sequence[AdaptationRequest]) -> None:
        """Answer these requests, those of equal model and shape together."""
        groups: dict[tuple[object, ...], list[tuple[AdaptationRequest, Support]]] = {}
        for request in requests:
            if request.op == "predict":
                self._guarded([request], self._predict, request)
                continue
            try:
                support = _support(request)
            except WarploomError as error:
                self._queue.fail(request, error)
                continue
            key = (request.model, request.version, *support.shape())
            groups.setdefault(key, []).append((request, support))
        for group in groups.values():
            self._guarded([request for request, _ in group], self._adapt, group)

    def _guarded(self, requests: Iterable[AdaptationRequest], work: Any, *args: Any) -> None:
        """Do `work`; whatever it raises becomes the requests' answer, and the adapter lives on."""
        try:
            work(*args)
        except Unavailable:
            raise
        except WarploomError as error:
            for request in requests:
                self._queue.fail(request, error)
        except Exception as error:
            log.exception("adaptation failed")
            for request in requests:
                self._queue.fail(request, WarploomError(f"adaptation failed: {type(error).__name__}: {error}"))

    def _adapt(self, group: Sequence[tuple[AdaptationRequest, Support]]) -> None:
        model = self._model(group[0][0])
        for (request, _), answer in zip(group, model.adapt([support for _, support in group]), strict=True):
            if not all(abs(value) < float("inf") for value in answer.losses):
                self._queue.fail(request, _diverged(request))
                continue
            record = self._record(request, answer)
            self._queue.keep(request.id, record.model_dump(mode="json"), _pack_adapted(answer))
            self._queue.answer(request, _reply("adaptation", answer.outputs_Q, record.model_dump(mode="json")))

    def _predict(self, request: AdaptationRequest) -> None:
        _, blob = self._queue.kept(request.adaptation or "")
        tensors, _ = unpack_tensors("adapted", blob)
        params = {name[2:]: value for name, value in tensors.items() if name.startswith("p/")}
        stats = {name[2:]: value for name, value in tensors.items() if name.startswith("s/")}
        arrays, _ = wire.decode("support", request.payload)
        x_Q = torch.from_numpy(arrays["query_x"]).float()
        self._queue.answer(request, _reply("prediction", self._model(request).predict(params, stats, x_Q), {}))

    def _model(self, request: AdaptationRequest) -> ServedModel:
        key = (request.model, request.version)
        if key not in self._warm:
            self._warm[key] = ServedModel.load(self._models.blob(*key))
            if len(self._warm) > WARM_MODELS:
                self._warm.popitem(last=False)
        self._warm.move_to_end(key)
        return self._warm[key]

    def _record(self, request: AdaptationRequest, answer: Answer) -> Adaptation:
        return Adaptation(
            id=request.id,
            model=request.model,
            version=request.version,
            steps=request.steps,
            lr=request.lr,
            losses=answer.losses,
            support_accuracy=answer.support_accuracy,
            expires_at=time.time() + self._settings.adaptation_ttl_s,
        )


def _support(request: AdaptationRequest) -> Support:
    arrays, _ = wire.decode("support", request.payload)
    x_S = torch.from_numpy(arrays["support_x"]).float()
    y_S = torch.from_numpy(arrays["support_y"])
    query = arrays.get("query_x")
    return Support(
        x_S=x_S,
        y_S=y_S.float() if y_S.is_floating_point() else y_S.long(),
        x_Q=x_S.new_zeros(0, *x_S.shape[1:]) if query is None else torch.from_numpy(query).float(),
        steps=request.steps,
        lr=request.lr,
        seed=request.seed,
    )


def _diverged(request: AdaptationRequest) -> InvalidInput:
    return InvalidInput(
        f"adaptation diverged: the support loss is not finite after {request.steps} steps at lr {request.lr}",
        field="/lr",
        rule="small enough for the loss to stay finite",
        value=request.lr,
    )


def _pack_adapted(answer: Answer) -> bytes:
    tensors = {f"p/{name}": value for name, value in answer.params.items()}
    return pack_tensors("adapted", tensors | {f"s/{name}": value for name, value in answer.stats.items()})


def _reply(kind: str, outputs_Q: torch.Tensor, header: dict[str, Any]) -> bytes:
    return pack_tensors(kind, {"outputs": outputs_Q} if outputs_Q.shape[0] else {}, header)
