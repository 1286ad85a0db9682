"""Requests to the adapters: made, sent, waited for."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sized
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from api.payload import SMALL_BYTES, Options
from api.state import Call, Services
from service.adaptations import AdaptationQueue, AdaptationRequest
from warploom.errors import TimedOut, Unavailable
from warploom.records import Model
from warploom.wire import encode

T = TypeVar("T")


class Manner(NamedTuple):
    """How a caller wants an answer.

    Args:
        timeout_s: how long it will wait; the work is not begun after that. None: as the service likes.
        later: it will come back for the answer.
        key: its own key for the request: a repeat gets the first one's answer.
    """

    timeout_s: float | None = None
    later: bool = False
    key: str | None = None


async def count_rows(services: Services, call: Call, *rows: Any) -> None:
    """Count a call, and take what is sent from the caller's limit of rows."""
    count = sum(len(values) for values in rows if isinstance(values, Sized))
    await services.spend(call, count)


async def off_loop(size: int, function: Callable[..., T], *args: Any) -> T:
    """Small work at once, because a change of thread costs more; large work not on the event loop."""
    return function(*args) if size <= SMALL_BYTES else await run_in_threadpool(function, *args)


def adapt_request(
    services: Services, model: Model, arrays: dict[str, NDArray[Any]], options: Options, manner: Manner
) -> AdaptationRequest:
    """A request to adapt to the task in `arrays`."""
    settings, queue = services.settings, services.queue
    payload = encode("support", arrays)
    steps = model.default_steps if options.steps is None else options.steps
    later = manner.later or len(arrays["support_x"]) * steps > settings.adapt_sync_work
    wait_s = settings.adapt_later_s if later else manner.timeout_s or settings.adapt_wait_s
    told = f"{model.name} {options.model_dump_json(include=set(Options.model_fields))}\n".encode()
    lr, seed = model.default_lr if options.lr is None else options.lr, options.seed or 0
    decides = f"{services.models.full_name(model.name)} {model.version} {steps} {lr!r} {seed}\n".encode()
    return AdaptationRequest(
        id=queue.id_of(manner.key) if manner.key else AdaptationQueue.new_id(),
        op="adapt",
        model=model.name,
        version=model.version,
        steps=steps,
        lr=lr,
        seed=seed,
        payload=payload,
        deadline=time.time() + wait_s,
        inbox="" if later else services.mailbox.address,
        lasting=later or manner.key is not None,
        content=_hash(decides, *(arrays[name].tobytes() for name in ("support_x", "support_y"))),
        # Not the payload: its header says the same in any order.
        fingerprint=_hash(told, *(arrays[name].tobytes() for name in sorted(arrays))) if manner.key else "",
        warnings=_warnings(model, arrays["support_y"]),
    )


def predict_request(services: Services, model: Model, adaptation_id: str, x: NDArray[Any]) -> AdaptationRequest:
    """A request to predict with kept parameters."""
    return AdaptationRequest(
        id=AdaptationQueue.new_id(),
        op="predict",
        model=model.name,
        version=model.version,
        steps=0,
        lr=0.0,
        seed=0,
        payload=encode("support", {"query_x": x}),
        adaptation=adaptation_id,
        deadline=time.time() + services.settings.adapt_wait_s,
        inbox=services.mailbox.address,
    )


async def ask(services: Services, request: AdaptationRequest, manner: Manner) -> bytes | None:
    """The answer to a request; None when its caller shall come back for it.

    Raises:
        TimedOut: none before its deadline.
        Unavailable: there is no adapter, or no Redis, or too many wait.
        WarploomError: the failure that the adapter reports.
    """
    settings = services.settings
    if not request.inbox:
        await services.mailbox.submit(services.queue, request)
        return None
    last_s = manner.timeout_s or settings.adapt_wait_s
    patience_s = last_s if manner.timeout_s else min(last_s, settings.adapt_sync_s)
    begin = time.monotonic()
    try:
        blob = await services.mailbox.ask(services.queue, request, patience_s)
        if blob is None:  # a repeat: whoever sent the first one gets the answer in its own mailbox
            blob = await services.live.reply(request.id, max(0.001, patience_s - time.monotonic() + begin))
        return blob
    except TimedOut:
        if not (await run_in_threadpool(services.fleet.alive)).get("adapter"):
            raise Unavailable("no adapter is running, so nobody answers adaptation requests") from None
        if patience_s < last_s:
            return None
        raise


def _warnings(model: Model, labels: NDArray[Any]) -> list[str]:
    """What makes a good answer unlikely: far fewer examples than the model learned to adapt from."""
    shots = (model.spec.get("task") or {}).get("shots")
    if not isinstance(shots, int):
        return []
    if model.kind != "classification":
        few = len(labels) < shots
        return [f"{len(labels)} examples; the model learned to adapt from {shots}"] if few else []
    counts = Counter(labels.tolist())
    return [
        f"class {label} has {counts[label]} of the {shots} examples that the model learned to adapt from"
        for label in sorted(counts)
        if counts[label] < shots
    ][:20]


def _hash(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(b"%d " % len(part) + part)
    return found.hexdigest()
