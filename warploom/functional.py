"""Calling a model with parameters from outside, for one task or for T tasks at once.

Shape suffixes: T tasks, B batch. θ are the adaptable parameters (roles adapt and head), φ all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F

from warploom.configs import Kind
from warploom.models.base import VECTORISED, Model
from warploom.threads import own_module, side_by_side
from warploom.types import Tensors


def forward(
    model: Model, params: Mapping[str, Tensor], x_B: Tensor, stats: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The model's outputs [B, outputs] for a batch.

    Args:
        model: says the computation.
        params: every parameter by name.
        x_B: [B, *input].
        stats: statistics for batch normalisation; without them a layer takes those of the batch.
    """
    outputs: Tensor = functional_call(own_module(model.module), {**params, **(stats or {})}, (x_B,))
    return outputs


def task_loss(kind: Kind, outputs_B: Tensor, y_B: Tensor) -> Tensor:
    """Mean cross-entropy of logits (classification) or mean squared error (regression)."""
    if kind == "classification":
        return F.cross_entropy(outputs_B, y_B)
    return F.mse_loss(outputs_B, y_B)


def loss(
    model: Model, params: Mapping[str, Tensor], x_B: Tensor, y_B: Tensor, stats: Mapping[str, Tensor] | None = None
) -> Tensor:
    """L(θ, φ) on one batch of one task: a scalar."""
    return task_loss(model.kind, forward(model, params, x_B, stats), y_B)


def batch_stats(model: Model, params: Mapping[str, Tensor], x_B: Tensor) -> Tensors:
    """Mean and (biased) variance that each `BatchNorm` layer sees when `x_B` goes through the net.

    Handing these back to `forward` gives, on the same batch, the same outputs as without any.
    """
    found: Tensors = {}

    def watch(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def hook(_: Any, args: tuple[Tensor, ...]) -> None:
            dims = [d for d in range(args[0].ndim) if d != 1]
            found[f"{name}.mean"] = args[0].mean(dims)
            found[f"{name}.var"] = args[0].var(dims, correction=0)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in model.norms().items()]
    if not handles:
        return {}
    try:
        forward(model, params, x_B)
    finally:
        for handle in handles:
            handle.remove()
    return found


def vectorises(model: Model, device: torch.device | str) -> bool:
    """Whether T tasks run faster as one vectorised call than one after the other.

    On a CPU, per-task convolution weights turn into grouped convolutions, which are slower than a loop; matrix
    products gain an order of magnitude (`benchmarks/vectorise.py`). On an accelerator both gain.
    """
    return torch.device(device).type != "cpu" or not model.convolutional


def over_tasks(fn: Callable[..., Any], *args: Any, vectorise: bool) -> Any:
    """`fn` for each task, results stacked along a new first dimension.

    Args:
        fn: takes the arguments of one task; returns a tensor, or a dict or tuple of such.
        args: tensors or dicts of tensors with leading dimension T.
        vectorise: one call of `torch.func.vmap`, or each task by itself, spread over the process's threads
            (`warploom.threads`); both give the same up to round-off.

    Example:
        >>> over_tasks(lambda a: a.sum(), torch.ones(3, 2), vectorise=False).tolist()
        [2.0, 2.0, 2.0]
    """
    if vectorise:
        token = VECTORISED.set(True)
        try:
            return vmap(fn)(*args)
        finally:
            VECTORISED.reset(token)
    count = _leading(args[0])
    return _stack(side_by_side([partial(fn, *(_take(arg, t) for arg in args)) for t in range(count)]))


def expand(params: Mapping[str, Tensor], tasks: int) -> Tensors:
    """Each tensor repeated T times along a new first dimension, without copying."""
    return {name: value.unsqueeze(0).expand(tasks, *value.shape) for name, value in params.items()}


def _leading(value: Any) -> int:
    return _leading(next(iter(value.values()))) if isinstance(value, Mapping) else int(value.shape[0])


def _take(value: Any, t: int) -> Any:
    return {name: v[t] for name, v in value.items()} if isinstance(value, Mapping) else value[t]


def _stack(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, Mapping):
        return {name: _stack([result[name] for result in results]) for name in first}
    if isinstance(first, tuple):
        return tuple(_stack([result[i] for result in results]) for i in range(len(first)))
    return torch.stack(results)
