"""What can be asked about adaptations: adapt to arrays, to several tasks or to pictures; predict, fetch, forget."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from numpy.typing import ArrayLike

from warploom.client.calls import (
    IDEMPOTENCY_KEY,
    NPZ,
    Call,
    content,
    delete,
    given,
    npz,
    numbers,
    part,
    post,
    record,
)
from warploom.client.core import Core
from warploom.errors import InvalidInput
from warploom.records import Adaptation, PendingAdaptation, Prediction, Record

Picture = bytes | str | os.PathLike[str]


async def adapt(
    core: Core,
    model: str,
    support_x: ArrayLike,
    support_y: ArrayLike,
    query_x: ArrayLike | None = None,
    steps: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    version: int | None = None,
    deadline_s: float | None = None,
) -> Adaptation:
    """Adapt a model to one task and, with `query_x`, predict its queries.

    Work that the service does not answer at once is asked for again until it is there.

    Args:
        core, model: the model's name, also as `name@alias`.
        support_x: the task's examples, [S, *input].
        support_y: their labels 0 … N-1 ([S]) or targets ([S, outputs]).
        query_x: examples to predict, [Q, *input].
        steps: steps of adaptation; default the model's own. 0 predicts without adapting.
        lr: step size; default the model's own.
        seed: seed of the minibatches.
        version: the model's version; default the latest.
        deadline_s: what the service has not begun by then is not computed, and TimedOut is raised; 1 or more.
    """
    options = {
        "content": npz({"support_x": support_x, "support_y": support_y, "query_x": query_x}),
        "headers": NPZ | _adapting(deadline_s),
        "params": given(steps=steps, lr=lr, seed=seed, version=version),
    }
    return await _one(core, model, options)


async def adapt_many(
    core: Core,
    model: str,
    tasks: Sequence[Sequence[ArrayLike]],
    steps: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    version: int | None = None,
    deadline_s: float | None = None,
) -> list[Adaptation]:
    """Adapt a model to each of several tasks in one call; all are checked before any is begun.

    Args:
        tasks: for each (support_x, support_y) or (support_x, support_y, query_x).

    All else as for `adapt`.
    """
    body = given(steps=steps, lr=lr, seed=seed, version=version) | {"tasks": [_task(*task) for task in tasks]}
    options = {"json": body, "headers": _adapting(deadline_s)}
    call = Call(method="POST", path=_path(model), read=record(_Several), options=options, safe=True)
    return [await _ready(core, found) for found in (await core.do(call)).data]


async def adapt_pictures(
    core: Core,
    model: str,
    support: Mapping[int, Sequence[Picture]],
    query: Sequence[Picture] = (),
    steps: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    version: int | None = None,
    deadline_s: float | None = None,
) -> Adaptation:
    """Adapt a model of pictures to PNG or JPEG files; the service reads them as the model's family reads its own.

    Args:
        core, model: the model's name, also as `name@alias`.
        support: for each class 0 … N-1 its files, as bytes or paths.
        query: files to predict.

    All else as for `adapt`.

    Raises:
        InvalidInput: a file cannot be read, or is no picture of these kinds, or the classes are not those of the model.

    Example:
        >>> client.adapt_pictures("digits", {0: ["cat1.png"], 1: ["dog1.jpg"]}, ["who.jpg"])     # doctest: +SKIP
    """
    fields = [(f"support[{int(label)}]", picture) for label, pictures in support.items() for picture in pictures]
    if not fields:
        rule = "at least one file"
        raise InvalidInput(f"/support: {rule}", field="/support", rule=rule, value=0)
    fields += [("query", picture) for picture in query]
    options = {
        "files": _files(fields),
        "data": {name: str(value) for name, value in given(steps=steps, lr=lr, seed=seed, version=version).items()},
        "headers": _adapting(deadline_s),
    }
    return await _one(core, model, options)


async def adaptation(core: Core, id: str) -> Adaptation:
    """An adaptation that the service keeps; waits for one that is still being made."""
    return await _ready(core, await core.do(_look(id)))


class _Several(Record):
    data: list[Adaptation | PendingAdaptation]


def _path(model: str) -> str:
    return f"/v1/models/{part(model)}/adapt"


async def _one(core: Core, model: str, options: Mapping[str, Any]) -> Adaptation:
    call = Call(method="POST", path=_path(model), read=_found, options=options, safe=True)
    return await _ready(core, await core.do(call))


def _files(fields: Sequence[tuple[str, Picture]]) -> list[Any]:
    """The files of a form; read now and whole, because a repeat sends them again."""
    return [(name, ("picture", _read(name, picture))) for name, picture in fields]


def _read(name: str, picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        said = f"cannot read {os.fspath(picture)}: {error.strerror}"
        raise InvalidInput(said, field=f"/{name}", rule="a readable file", value=os.fspath(picture)) from None


def _adapting(deadline_s: float | None) -> dict[str, str]:
    timeout = {} if deadline_s is None else {"X-Request-Timeout": str(deadline_s)}
    return {IDEMPOTENCY_KEY: uuid.uuid4().hex, **timeout}


def _task(support_x: ArrayLike, support_y: ArrayLike, query_x: ArrayLike | None = None) -> dict[str, Any]:
    support = {"x": numbers("support_x", support_x).tolist(), "y": numbers("support_y", support_y).tolist()}
    return {"support": support} | ({} if query_x is None else {"query": {"x": numbers("query_x", query_x).tolist()}})


def _look(id: str) -> Call[Adaptation | PendingAdaptation]:
    return Call(method="GET", path=f"/v1/adaptations/{part(id)}", read=_found, safe=True)


def _found(answer: httpx.Response) -> Adaptation | PendingAdaptation:
    return record(PendingAdaptation)(answer) if answer.status_code == 202 else record(Adaptation)(answer)


async def _ready(core: Core, found: Adaptation | PendingAdaptation) -> Adaptation:
    while isinstance(found, PendingAdaptation):
        await core.sleep(found.retry_in_seconds)
        found = await core.do(_look(found.id))
    return found


def adapted_weights(id: str) -> Call[bytes]:
    """Adapted parameters (`p/<name>`) and normalising statistics (`s/<name>`) as safetensors bytes, checked.

    Example:
        >>> from safetensors.torch import load                               # doctest: +SKIP
        >>> tensors = load(client.adapted_weights(adapted.id))               # doctest: +SKIP
        >>> params = {name[2:]: tensors[name] for name in tensors if name.startswith("p/")}  # doctest: +SKIP
    """
    return content(f"/v1/adaptations/{part(id)}/weights", f"the file of adaptation {id!r}")


def forget(id: str) -> Call[None]:
    """Drop an adaptation before it expires."""
    return delete(f"/v1/adaptations/{part(id)}")


def predict(adaptation_id: str, query_x: ArrayLike) -> Call[Prediction]:
    """More queries for a model that was adapted before."""
    path = f"/v1/adaptations/{part(adaptation_id)}/predict"
    return post(path, Prediction, safe=True, content=npz({"query_x": query_x}), headers=NPZ)


def predict_pictures(adaptation_id: str, query: Sequence[Picture]) -> Call[Prediction]:
    """More PNG or JPEG files, as bytes or paths, for a model that was adapted before.

    Raises:
        InvalidInput: no file, or one that cannot be read.
    """
    if not query:
        raise InvalidInput("/query: at least one file", field="/query", rule="at least one file", value=0)
    path = f"/v1/adaptations/{part(adaptation_id)}/predict"
    return post(path, Prediction, safe=True, files=_files([("query", picture) for picture in query]))
