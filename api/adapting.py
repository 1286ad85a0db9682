"""From a checked request to its answer: ask the adapters, wait, read what they say."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from api import support
from api.payload import AdaptInput, Options
from api.state import Services
from service.adaptations import AdaptationQueue, AdaptationRequest
from warploom.errors import InvalidInput, TimedOut, Unavailable
from warploom.records import Adaptation, Model, Prediction
from warploom.wire import decode, encode


async def adapt(services: Services, name: str, given: AdaptInput) -> Adaptation:
    """Adapt the model `name` to the task in `given`.

    Raises:
        NotFound: no such model or version.
        InvalidInput: the task does not fit the model.
        TimedOut: the adapters did not answer in time.
        Unavailable: there is no adapter, or no Redis.
    """
    model, request = await run_in_threadpool(_adapt_request, services, name, given)
    blob = await _ask(services, request)
    return await run_in_threadpool(_adaptation, model, blob)


async def predict(services: Services, adaptation_id: str, query_x: Any) -> Prediction:
    """Predict more queries with the adaptation of this id. Raises as `adapt` does; NotFound when it has expired."""
    model, request = await run_in_threadpool(_predict_request, services, adaptation_id, query_x)
    blob = await _ask(services, request)
    return await run_in_threadpool(lambda: _prediction(model, decode("prediction", blob)[0]["outputs"]))


async def _ask(services: Services, request: AdaptationRequest) -> bytes:
    await run_in_threadpool(services.queue.submit, request)
    try:
        return await services.live.reply(request.id, services.settings.adapt_wait_s)
    except TimedOut:
        alive = await run_in_threadpool(services.fleet.alive)
        if alive.get("adapter"):
            raise
        raise Unavailable("no adapter is running, so nobody answers adaptation requests") from None


def _adapt_request(services: Services, name: str, given: AdaptInput) -> tuple[Model, AdaptationRequest]:
    settings, options = services.settings, given.options
    model = services.models.get(name, options.version)
    if options.steps is not None and options.steps > settings.max_steps:
        rule = f"from 0 to {settings.max_steps}"
        message = f"/steps: must be {rule}, got {options.steps}"
        raise InvalidInput(message, field="/steps", rule=rule, value=options.steps)
    task = support.check(model, given.x, given.y, given.query_x, max_rows=services.limits.most("support_rows"))
    services.limits.take(rows_per_minute=len(task.x) + (0 if task.query_x is None else len(task.query_x)))
    arrays = {"support_x": task.x, "support_y": task.y}
    if task.query_x is not None:
        arrays["query_x"] = task.query_x
    return model, _request(services, "adapt", model, arrays, options)


def _predict_request(services: Services, adaptation_id: str, query_x: Any) -> tuple[Model, AdaptationRequest]:
    kept = Adaptation.model_validate(services.queue.kept(adaptation_id)[0])
    model = services.models.get(kept.model, kept.version)
    queries = support.inputs(model, query_x, "/query/x", services.limits.most("support_rows"))
    services.limits.take(rows_per_minute=len(queries))
    options = Options(steps=kept.steps, lr=kept.lr)
    return model, _request(services, "predict", model, {"query_x": queries}, options, adaptation_id)


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
