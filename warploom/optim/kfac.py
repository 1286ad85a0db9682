"""Natural gradients by K-FAC, as the library curvlinops computes them.

For a layer with inputs a and gradients g of its outputs, K-FAC takes its block of the curvature as A ⊗ G with
A = E[a aᵀ] and G = E[g gᵀ], the bias counted as a weight of a constant input; see `KFACConfig` for the sources.
Shape suffix: B batch.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from warploom.errors import Unavailable, UnfitPair
from warploom.models.base import Model
from warploom.optim.configs import KFACConfig
from warploom.threads import own_module
from warploom.types import Tensors

_FISHER = {"exact": "type-2", "sampled": "mc", "empirical": "empirical"}
SEED = 2_147_483_647  # of the labels drawn for `sampled`: the same at each step, so that tasks repeat to the bit


def natural_gradient(
    model: Model,
    rule: KFACConfig,
    params: Mapping[str, Tensor],
    gradient: Tensors,
    x_B: Tensor,
    y_B: Tensor,
    stats: Mapping[str, Tensor],
) -> Tensors:
    """((A + δI) ⊗ (G + δI))⁻¹ ∇L of the linear and convolutional layers; the plain gradient of all else.

    A layer of which only the bias adapts keeps its plain gradient too.

    Args:
        model: its net, each layer of which an input passes once.
        rule: damping δ, and what the factors are made of.
        params: every parameter of the model by name.
        gradient: ∇L of the adaptable ones, by name.
        x_B: [B, *input].
        y_B: [B] classes, or [B, outputs] values.
        stats: fixed statistics for batch normalisation; empty to take the batch's.

    Raises:
        Unavailable: curvlinops is not installed.
        UnfitPair: the net has no layer that K-FAC knows.

    Source: Dangel et al., curvlinops, arXiv:2501.19183.
    """
    operators = _curvlinops()
    net = _loaded(model, params, stats)
    named = dict(net.named_parameters())
    layers = {name for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    weights = {f"{name}.weight" for name in layers} & gradient.keys()
    known = [
        n for n in gradient if n in weights or (n.removesuffix("bias") + "weight" in weights and n[-5:] == ".bias")
    ]
    if not known:
        raise UnfitPair(
            "K-FAC preconditions linear and convolutional layers, and none of this net's adapts",
            field="/algorithm/preconditioner",
            rule="a net with adaptable linear or convolutional layers",
        )
    loss = nn.CrossEntropyLoss() if model.kind == "classification" else nn.MSELoss()
    with torch.enable_grad():
        curvature = operators.KFACLinearOperator(
            net,
            loss,
            [named[name] for name in known],
            [(x_B, y_B)],
            fisher_type=_FISHER[rule.curvature],
            seed=SEED,
            separate_weight_and_bias=False,
            check_deterministic=False,
        )
        inverse = operators.KFACInverseLinearOperator(curvature, damping=rule.damping)
        solved = inverse @ [gradient[name] for name in known]
    return {**gradient, **dict(zip(known, (value.detach() for value in solved), strict=True))}


def _loaded(model: Model, params: Mapping[str, Tensor], stats: Mapping[str, Tensor]) -> nn.Module:
    net = copy.deepcopy(own_module(model.module))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(True)
        parameter.data = params[name].detach().clone()
    for name, value in stats.items():
        layer, _, kept = name.rpartition(".")
        setattr(net.get_submodule(layer), kept, value.detach())
    return net


def _curvlinops() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies about torch.jit
            import curvlinops
    except ImportError as error:
        raise Unavailable("K-FAC needs the package curvlinops-for-pytorch: pip install 'warploom[kfac]'") from error
    return curvlinops
