"""What warp layers do to activations: statistics before and after each of them, in adapted nets on held-out examples.

For activations h of a layer, with the channels in dimension 1 and everything else taken as N samples, mean μ_c and
variance v_c of channel c:

    centre      √(Σ μ_c² / Σ (μ_c² + v_c)): 0 when every channel is centred at zero, 1 when nothing varies
    correlation mean over pairs of channels of |corr(c, d)|: 0 when the covariance is diagonal
    spread      standard deviation of v_c over the mean of v_c: 0 when all channels vary alike

Were the warp a whitening, all three would be 0 behind it.

Source: Flennerhag et al., ICLR 2020, appendix G, which shows histograms; the three numbers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from warploom.algorithms.base import Algorithm
from warploom.functional import forward
from warploom.threads import own_module
from warploom.types import MetaState, TaskRef

NAMES = ("centre", "correlation", "spread")


def statistics(h: Tensor) -> dict[str, float]:
    """Centre, correlation and spread of activations [B, C, ...].

    Example:
        >>> found = statistics(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))
        >>> found["centre"], round(found["correlation"], 6), round(found["spread"], 6)
        (0.0, 1.0, 0.6)
    """
    h_NC = h.detach().double().transpose(0, 1).flatten(1).T
    mean_C, var_C = h_NC.mean(0), h_NC.var(0, correction=0)
    live_C = var_C > 1e-12 * var_C.max()
    count = int(live_C.sum())
    corr_CC = torch.corrcoef(h_NC[:, live_C].T).view(count, count)
    pairs = corr_CC[~torch.eye(count, dtype=torch.bool)].abs()
    return {
        "centre": float((mean_C.square().sum() / (mean_C.square() + var_C).sum()).sqrt()),
        "correlation": float(pairs.mean()) if len(pairs) else 0.0,
        "spread": float(var_C.std(correction=0) / var_C.mean()),
    }


def around_warps(algorithm: Algorithm[Any], meta: MetaState, refs: Sequence[TaskRef]) -> dict[str, dict[str, float]]:
    """Each warp layer's statistics, as means over tasks.

    Args:
        algorithm, meta: what was trained.
        refs: held-out tasks to adapt to.

    Returns:
        `{"warp0": {"centre before": …, "centre after": …, …}, …}`; empty for a net without layers named `warp<i>`.
    """
    module = own_module(algorithm.model.module)
    layers = {name: layer for name, layer in module.named_children() if name.startswith("warp")}
    if not layers:
        return {}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in layers}

    def watch(name: str) -> Any:
        def hook(_: Any, args: tuple[Tensor, ...], out: Tensor) -> None:
            before, after = statistics(args[0]), statistics(out)
            rows[name].append(
                {f"{what} before": before[what] for what in NAMES} | {f"{what} after": after[what] for what in NAMES}
            )

        return hook

    for ref in refs:
        tasks = algorithm.family.sample([ref])
        adapted = algorithm.adapt(meta, tasks, seeds=[ref.seed])
        one = {name: value[0] for name, value in {**adapted.params, **adapted.stats}.items()}
        handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
        try:
            with torch.no_grad():
                forward(algorithm.model, {**algorithm.fixed(meta.params), **one}, tasks.query_x[0])
        finally:
            for handle in handles:
                handle.remove()
    return {
        name: {key: sum(row[key] for row in found) / len(found) for key in found[0]} for name, found in rows.items()
    }
