"""From a checked request to its answer: ask the adapters, wait, read what they say."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sized
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from api import support
from api.payload import SMALL_BYTES, AdaptInput, Options, QueryInput
from api.state import Services
from service.adaptations import AdaptationQueue, AdaptationRequest
from warploom.errors import InvalidInput, TimedOut, Unavailable
from warploom.records import Adaptation, Model, Prediction
from warploom.wire import decode, encode

T = TypeVar("T")


async def adapt(services: Services, name: str, given: AdaptInput) -> Adaptation:
    """Adapt the model `name` to the task in `given`.

    Raises:
        NotFound: no such model or version.
        InvalidInput: the task does not fit the model.
        TimedOut: the adapters did not answer in time.
        Unavailable: there is no adapter, or no Redis.
    """
    model, _ = await asyncio.gather(
        _model(services, name, given.options.version), _count(services, given.x, given.query_x)
    )
    request = await _off_loop(given.size, _adapt_request, services, model, given)
    blob = await _ask(services, request)
    return await _off_loop(len(blob), _adaptation, model, blob)


async def predict(services: Services, adaptation_id: str, query: QueryInput) -> Prediction:
    """Predict more queries with the adaptation of this id. Raises as `adapt` does; NotFound when it has expired."""
    info, _ = await run_in_threadpool(services.queue.kept, adaptation_id)
    kept = Adaptation.model_validate(info)
    model, _ = await asyncio.gather(_model(services, kept.model, kept.version), _count(services, query.x))
    request = await _off_loop(query.size, _predict_request, services, model, kept, query.x)
    blob = await _ask(services, request)
    return await _off_loop(len(blob), lambda: _prediction(model, decode("prediction", blob)[0]["outputs"]))


async def _model(services: Services, name: str, version: int | None) -> Model:
    key = (services.models.full_name(name), version)
    return await services.lookups.ask(key, lambda: services.models.get(name, version))


async def _count(services: Services, *rows: Any) -> None:
    """Take what is sent from the caller's limit of rows."""
    count = sum(len(values) for values in rows if isinstance(values, Sized))
    await run_in_threadpool(partial(services.limits.take, rows_per_minute=count))


async def _off_loop(size: int, function: Callable[..., T], *args: Any) -> T:
    """Small work at once, because a change of thread costs more; large work not on the event loop."""
    return function(*args) if size <= SMALL_BYTES else await run_in_threadpool(function, *args)


async def _ask(services: Services, request: AdaptationRequest) -> bytes:
    timeout_s = services.settings.adapt_wait_s
    try:
        blob = await services.mailbox.ask(services.queue, request, timeout_s)
        return await services.live.reply(request.id, timeout_s) if blob is None else blob
    except TimedOut:
        alive = await run_in_threadpool(services.fleet.alive)
        if alive.get("adapter"):
            raise
        raise Unavailable("no adapter is running, so nobody answers adaptation requests") from None


def _adapt_request(services: Services, model: Model, given: AdaptInput) -> AdaptationRequest:
    settings, options = services.settings, given.options
    if options.steps is not None and options.steps > settings.max_steps:
        rule = f"from 0 to {settings.max_steps}"
        message = f"/steps: must be {rule}, got {options.steps}"
        raise InvalidInput(message, field="/steps", rule=rule, value=options.steps)
    task = support.check(model, given.x, given.y, given.query_x, max_rows=services.limits.most("support_rows"))
    arrays = {"support_x": task.x, "support_y": task.y}
    if task.query_x is not None:
        arrays["query_x"] = task.query_x
    return _request(services, "adapt", model, arrays, options)


def _predict_request(services: Services, model: Model, kept: Adaptation, query_x: Any) -> AdaptationRequest:
    queries = support.inputs(model, query_x, "/query/x", services.limits.most("support_rows"))
    options = Options(steps=kept.steps, lr=kept.lr)
    return _request(services, "predict", model, {"query_x": queries}, options, kept.id)


def _request(
    services: Services,
    op: Any,
    model: Model,
    arrays: dict[str, NDArray[Any]],
    options: Options,
    adaptation: str | None = None,
) -> AdaptationRequest:
    return AdaptationRequest(
        id=AdaptationQueue.new_id(),
        op=op,
        model=model.name,
        version=model.version,
        steps=model.default_steps if options.steps is None else options.steps,
        lr=model.default_lr if options.lr is None else options.lr,
        seed=options.seed or 0,
        payload=encode("support", arrays),
        adaptation=adaptation,
        deadline=time.time() + services.settings.adapt_wait_s,
        inbox=services.mailbox.address,
    )


def _adaptation(model: Model, blob: bytes) -> Adaptation:
    arrays, header = decode("adaptation", blob)
    adapted = Adaptation.model_validate({**header, "model": model.name})
    if not all(map(math.isfinite, adapted.losses)):
        raise _diverged("the support loss", adapted.lr)
    if "outputs" not in arrays:
        return adapted
    return adapted.model_copy(update={"prediction": _prediction(model, arrays["outputs"], adapted.lr)})


def _prediction(model: Model, outputs: NDArray[Any], lr: float | None = None) -> Prediction:
    if not np.isfinite(outputs).all():
        raise _diverged("the prediction", lr)
    labels = outputs.argmax(axis=1).tolist() if model.kind == "classification" else None
    return Prediction(labels=labels, outputs=outputs.tolist())


def _diverged(what: str, lr: float | None) -> InvalidInput:
    return InvalidInput(
        f"/lr: the adaptation diverged: {what} is not finite; a smaller step size may help",
        field="/lr",
        rule="small enough for this task",
        value=lr,
    )
