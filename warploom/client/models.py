"""What can be asked about models and adaptations."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx
from numpy.typing import ArrayLike

from warploom.client.calls import (
    IDEMPOTENCY_KEY,
    NPZ,
    Call,
    content,
    delete,
    filters,
    get,
    given,
    npz,
    numbers,
    part,
    patch,
    plain,
    post,
    put,
    record,
)
from warploom.client.core import Core
from warploom.records import Adaptation, Model, Page, PendingAdaptation, Prediction, Record

if TYPE_CHECKING:
    from warploom.local_model import LocalModel


def pages(
    limit: int = 100,
    after: str | None = None,
    order: str | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Call[Page[Model]]:
    """The latest version of every model, a page at a time, by name; all else as for `jobs`."""
    times = {"created_after": created_after, "created_before": created_before}
    return get("/v1/models", Page[Model], **filters(metadata, limit=limit, after=after, order=order, **times))


async def listing(core: Core) -> list[Model]:
    """The latest version of every model."""
    found = await core.do(pages(1000))
    models = found.data
    while found.has_more and found.data:
        found = await core.do(pages(1000, after=models[-1].name))
        models = models + found.data
    return models


def note(name: str, metadata: Mapping[str, str | None]) -> Call[Model]:
    """Set pairs of a model's metadata, or remove them with None; the others stay."""
    return patch(_path(name), Model, {"metadata": dict(metadata)})


def one(name: str, version: int | None = None) -> Call[Model]:
    """One model; the latest version unless given, also as `name@version` or `name@alias`."""
    return get(_path(name, version), Model)


async def versions(core: Core, name: str) -> list[Model]:
    """All versions of a model, oldest first."""
    path = f"{_path(name)}/versions"
    found = await core.do(get(path, Page[Model], limit=1000))
    models = found.data
    while found.has_more and found.data:
        found = await core.do(get(path, Page[Model], limit=1000, after=models[-1].version))
        models = models + found.data
    return models


def aliases(name: str) -> Call[dict[str, Any]]:
    """The versions that a model's aliases stand for."""
    return plain(f"{_path(name)}/aliases")


def set_alias(name: str, alias: str, version: int) -> Call[Model]:
    """Make an alias, or move it: forwards to a new version, or back."""
    return put(f"{_path(name)}/aliases/{part(alias)}", Model, {"version": version})


def delete_alias(name: str, alias: str) -> Call[None]:
    """Forget an alias; `latest` then stands for the newest version again."""
    return delete(f"{_path(name)}/aliases/{part(alias)}")


def download(name: str, version: int | None = None) -> Call[bytes]:
    """The model's weights as safetensors bytes, checked against the service's checksum."""
    return content(f"{_path(name, version)}/weights", f"the file of model {name!r}")


def _path(name: str, version: int | None = None) -> str:
    return f"/v1/models/{part(name)}" + ("" if version is None else f"/versions/{int(version)}")


async def download_model(core: Core, name: str, version: int | None = None) -> LocalModel:
    """The model, to adapt it in this process without the service. Loads torch.

    Example:
        >>> net = client.download_model("sine").adapt(support_x, support_y)     # doctest: +SKIP
        >>> net(torch.as_tensor(query_x))                                       # doctest: +SKIP
    """
    from warploom.local_model import LocalModel

    return LocalModel(await core.do(download(name, version)))


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
        deadline_s: what the service has not begun by then is not computed, and TimedOut is raised.
    """
    options = {
        "content": npz({"support_x": support_x, "support_y": support_y, "query_x": query_x}),
        "headers": NPZ | _adapting(deadline_s),
        "params": given(steps=steps, lr=lr, seed=seed, version=version),
    }
    path = f"{_path(model)}/adapt"
    return await _ready(core, await core.do(Call(method="POST", path=path, read=_found, options=options, safe=True)))


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
    path = f"{_path(model)}/adapt"
    call = Call(method="POST", path=path, read=record(_Several), options=options, safe=True)
    return [await _ready(core, found) for found in (await core.do(call)).data]


async def adaptation(core: Core, id: str) -> Adaptation:
    """An adaptation that the service keeps; waits for one that is still being made."""
    return await _ready(core, await core.do(_look(id)))


class _Several(Record):
    data: list[Adaptation | PendingAdaptation]


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
