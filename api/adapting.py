"""From a checked request to its answer: ask the adapters, wait, read what they say."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api import pictures, support
from api.asking import Manner, adapt_request, ask, count_rows, off_loop, predict_request
from api.payload import AdaptInput, QueryInput
from api.state import Services
from service.adaptations import AdaptationRequest
from warploom.errors import InvalidInput, NotFound, WarploomError
from warploom.records import Adaptation, Model, PendingAdaptation, Prediction
from warploom.wire import decode

Found = Adaptation | PendingAdaptation
RETRY_S = 1.0


async def adapt(services: Services, name: str, given: AdaptInput, manner: Manner) -> Found:
    """Adapt the model `name` to the task in `given`.

    Raises:
        NotFound: no such model or version.
        InvalidInput: the task does not fit the model.
        TimedOut: the adapters did not answer in time.
        Unavailable: there is no adapter, or no Redis, or too many wait.
    """
    rows = (given.x, given.query_x, *(given.files or {}).values())
    model, _ = await asyncio.gather(
        services.models.look_up(services.state, name, given.options.version), count_rows(services, "adapt_calls", *rows)
    )
    request = await off_loop(given.size, _request, services, model, given, manner)
    blob = await ask(services, request, manner)
    if blob is None:
        return PendingAdaptation(id=request.id, retry_in_seconds=RETRY_S)
    return await off_loop(len(blob), _adaptation, model, blob)


async def adapt_many(services: Services, name: str, tasks: Sequence[AdaptInput], manner: Manner) -> list[Found]:
    """Adapt the model to each task by itself; all are checked before the first is sent. Raises as `adapt` does."""
    if len(tasks) > services.settings.adapt_tasks:
        rule = f"at most {services.settings.adapt_tasks} tasks"
        raise InvalidInput(f"/tasks: {rule}", field="/tasks", rule=rule, value=len(tasks))
    model, _ = await asyncio.gather(
        services.models.look_up(services.state, name, tasks[0].options.version),
        count_rows(services, "adapt_calls", *(rows for task in tasks for rows in (task.x, task.query_x))),
    )
    size = sum(task.size for task in tasks)
    requests = await off_loop(size, lambda: [_numbered(i, services, model, t, manner) for i, t in enumerate(tasks)])
    blobs = await asyncio.gather(*(ask(services, request, manner) for request in requests), return_exceptions=True)
    found: list[Found] = []
    for i, (request, blob) in enumerate(zip(requests, blobs, strict=True)):
        if isinstance(blob, BaseException):
            raise _at(i, blob) if isinstance(blob, WarploomError) else blob
        found.append(PendingAdaptation(id=request.id) if blob is None else _adaptation(model, blob))
    return found


async def predict(services: Services, adaptation_id: str, query: QueryInput) -> Prediction:
    """Predict more queries with the adaptation of this id. Raises as `adapt` does; NotFound when it has expired."""
    kept = Adaptation.model_validate(await services.queue.kept.info(services.replay, adaptation_id))
    model, _ = await asyncio.gather(
        services.models.look_up(services.state, kept.model, kept.version),
        count_rows(services, "predict_calls", *_rows(query)),
    )

    def make() -> AdaptationRequest:
        given = query.x if query.files is None else pictures.queries_of(model, query.files)
        x = support.inputs(model, given, "/query/x", services.limits.most("support_rows"))
        return predict_request(services, model, kept.id, x)

    request = await off_loop(query.size, make)
    blob = await ask(services, request, Manner(timeout_s=services.settings.adapt_wait_s))
    assert blob is not None
    return await off_loop(len(blob), lambda: _prediction(model, decode("prediction", blob)[0]["outputs"]))


def _rows(query: QueryInput) -> list[Any]:
    return [query.x] if query.files is None else list(query.files.values())


def look(services: Services, adaptation_id: str) -> Found:
    """An adaptation that is kept, or is being made.

    Raises:
        NotFound: unknown or expired.
        WarploomError: the failure that the adapter reported.
    """
    blob = None
    with suppress(NotFound):
        info = services.queue.kept.get(adaptation_id)[0]
        with suppress(WarploomError):
            blob = services.queue.reply(adaptation_id)
        if blob is None:
            return Adaptation.model_validate(info)
    blob = services.queue.reply(adaptation_id) if blob is None else blob
    if blob is None:
        return PendingAdaptation(id=adaptation_id, retry_in_seconds=RETRY_S)
    record = Adaptation.model_validate(decode("adaptation", blob)[1])
    return _adaptation(services.models.get(record.model.rpartition("/")[2], record.version), blob)


def _numbered(i: int, services: Services, model: Model, task: AdaptInput, manner: Manner) -> AdaptationRequest:
    key = None if manner.key is None else f"{manner.key}/{i}"
    try:
        return _request(services, model, task, manner._replace(key=key))
    except InvalidInput as error:
        raise _at(i, error) from None


def _at(i: int, error: WarploomError) -> WarploomError:
    """The same error, said of task i."""
    field = f"/tasks/{i}{error.field or ''}"
    return type(error)(f"task {i}: {error.message}", field=field, rule=error.rule, value=error.value)


def _request(services: Services, model: Model, given: AdaptInput, manner: Manner) -> AdaptationRequest:
    most, options = services.settings.max_steps, given.options
    if options.steps is not None and options.steps > most:
        rule = f"from 0 to {most}"
        message = f"/steps: must be {rule}, got {options.steps}"
        raise InvalidInput(message, field="/steps", rule=rule, value=options.steps)
    x, y, query_x = given.x, given.y, given.query_x
    if given.files is not None:
        x, y, query_x = pictures.task_of(model, given.files)
    task = support.check(model, x, y, query_x, max_rows=services.limits.most("support_rows"))
    arrays = {"support_x": task.x, "support_y": task.y}
    if task.query_x is not None:
        arrays["query_x"] = task.query_x
    return adapt_request(services, model, arrays, options, manner)


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
    if model.kind != "classification":
        return Prediction(outputs=outputs.tolist())
    return Prediction(
        labels=outputs.argmax(axis=1).tolist(), confidence=outputs.max(axis=1).tolist(), outputs=outputs.tolist()
    )


def _diverged(what: str, lr: float | None) -> InvalidInput:
    return InvalidInput(
        f"/lr: the adaptation diverged: {what} is not finite; a smaller step size may help",
        field="/lr",
        rule="small enough for this task",
        value=lr,
    )
