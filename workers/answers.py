"""Between the bytes of requests and answers and the tensors of `warploom.adaptation`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from service.adaptations import AdaptationRequest, Outcome
from service.kept import Kept
from warploom import wire
from warploom.adaptation import Answer, Support
from warploom.codec import pack_tensors, unpack_tensors
from warploom.errors import InvalidInput
from warploom.records import Adaptation
from warploom.types import Tensors


def support_of(request: AdaptationRequest) -> Support:
    """The task that a request wants a model adapted to.

    Raises:
        WireError: its payload is not one.
    """
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


def queries_of(request: AdaptationRequest) -> Tensor | None:
    """The queries of a request; None when it has none.

    Raises:
        WireError: its payload holds none.
    """
    query = wire.decode("support", request.payload)[0].get("query_x")
    return None if query is None else torch.from_numpy(query).float()


def weights_of(blob: bytes) -> tuple[Tensors, Tensors]:
    """Adapted parameters and statistics, by name."""
    tensors, _ = unpack_tensors("adapted", blob)
    return (
        {name[2:]: value for name, value in tensors.items() if name.startswith("p/")},
        {name[2:]: value for name, value in tensors.items() if name.startswith("s/")},
    )


def adapted(request: AdaptationRequest, answer: Answer, expires_at: float) -> Outcome:
    """What a request gets for its adaptation, and what is kept; a refusal when it diverged."""
    if not all(abs(value) < float("inf") for value in answer.losses):
        return Outcome(request, _diverged(request))
    record = Adaptation(
        id=request.id,
        model=request.model,
        version=request.version,
        steps=request.steps,
        lr=request.lr,
        losses=answer.losses,
        support_accuracy=answer.support_accuracy,
        seed=request.seed,
        warnings=request.warnings,
        expires_at=expires_at,
    ).model_dump(mode="json")
    tensors = {f"p/{name}": value for name, value in answer.params.items()}
    blob = pack_tensors("adapted", tensors | {f"s/{name}": value for name, value in answer.stats.items()})
    return Outcome(request, _reply("adaptation", answer.outputs_Q, record), Kept(record, blob))


def again(request: AdaptationRequest, kept: Kept, outputs_Q: Tensor | None) -> Outcome:
    """What a request gets from an adaptation that was there already."""
    nothing = torch.zeros(0, 1) if outputs_Q is None else outputs_Q
    if request.op == "predict":
        return Outcome(request, _reply("prediction", nothing, {}))
    return Outcome(request, _reply("adaptation", nothing, kept.info))


def _diverged(request: AdaptationRequest) -> InvalidInput:
    return InvalidInput(
        f"adaptation diverged: the support loss is not finite after {request.steps} steps at lr {request.lr}",
        field="/lr",
        rule="small enough for the loss to stay finite",
        value=request.lr,
    )


def _reply(kind: str, outputs_Q: Tensor, header: dict[str, Any]) -> bytes:
    return pack_tensors(kind, {"outputs": outputs_Q} if outputs_Q.shape[0] else {}, header)
