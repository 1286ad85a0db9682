"""ANIL: a task adapts the head alone; the outer loop learns the whole net.

Symbols: ψ the trunk, w the head, U_K(w; ψ) the head after K inner steps on the support set, L_Q the loss of the
queries. The meta-gradient of a task is ∇_(w, ψ) L_Q(U_K(w; ψ); ψ), with all second-order terms.
Source: Raghu, Raghu, Bengio, Vinyals, ICLR 2020, arXiv:1909.09157.

The trunk does not change while a task adapts, so its features of the support set are computed, and backpropagated
through, once for all steps that see the same batch, where the net is a trunk and then a head.
Shape suffixes: K inner steps (or 1), B batch, F features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from warploom.algorithms.configs.anil import ANILConfig
from warploom.algorithms.unrolled import Unrolled
from warploom.models.base import BatchNorm, Model
from warploom.tasks.base import TaskFamily
from warploom.threads import own_module
from warploom.types import MetaState, Tensors


class ANIL(Unrolled[ANILConfig]):
    """MAML whose inner loop moves the parameters of role head."""

    def __init__(self, config: ANILConfig, model: Model, family: TaskFamily[Any]) -> None:
        super().__init__(config, model, family)
        # A family with a loss of its own may ask the whole model for more than its outputs.
        plain = type(family).loss is TaskFamily.loss
        self._parts = cut_before_head(model) if plain else None

    def adapts(self) -> list[str]:
        """The head."""
        return self.model.names("head")

    def path(self, meta: MetaState, learned: Tensors, x_KB: Tensor, y_KB: Tensor) -> Iterator[tuple[Tensors, Tensor]]:
        """The path over the features of each batch."""
        if self._parts is None:
            return super().path(meta, learned, x_KB, y_KB)
        trunk, head = self._parts
        given = self.given_stats(meta)
        features_KBF = torch.stack([features(trunk, learned, x_B, given) for x_B in x_KB])
        return self.walk(_OnFeatures(self, head), meta, learned, features_KBF, y_KB)


def cut_before_head(model: Model) -> tuple[nn.Sequential, Model] | None:
    """The net's trunk, and its head as a model of the trunk's outputs.

    None where the net is not a sequence whose last part holds the whole head, or normalises by the batch there.

    Example:
        >>> from warploom.models.configs.mlp import MLPConfig
        >>> from warploom.models.mlp import build_mlp
        >>> from warploom.tasks.configs.sinusoid import SinusoidConfig
        >>> trunk, head = cut_before_head(build_mlp(MLPConfig(hidden=(40,)), SinusoidConfig()))
        >>> list(head.roles), len(trunk)
        (['head.weight', 'head.bias'], 3)
    """
    if not isinstance(model.module, nn.Sequential) or len(model.module) < 2:
        return None
    parts = OrderedDict(model.module.named_children())
    name, last = parts.popitem()
    whole = all(own.startswith(f"{name}.") for own in model.names("head"))
    if not whole or any(isinstance(layer, BatchNorm) for layer in last.modules()):
        return None
    roles = {own: role for own, role in model.roles.items() if own.startswith(f"{name}.")}
    return nn.Sequential(parts), replace(model, module=nn.Sequential(OrderedDict({name: last})), roles=roles)


def features(trunk: nn.Sequential, params: Mapping[str, Tensor], x_B: Tensor, stats: Mapping[str, Tensor]) -> Tensor:
    """The trunk's outputs [B, ...]; parameters and statistics of other parts are passed over."""
    mine = own_module(trunk)
    known = {**params, **stats}
    own = [name for name, _ in mine.named_parameters()] + [name for name, _ in mine.named_buffers()]
    outputs: Tensor = functional_call(mine, {name: known[name] for name in own if name in known}, (x_B,))
    return outputs


@dataclass(frozen=True)
class _OnFeatures:
    """The inner loop of `whole`, with the loss of its head on features in place of inputs."""

    whole: ANIL
    head: Model

    def start(self, learned: Tensors) -> Tensors:
        return self.whole.start(learned)

    def support_loss(
        self,
        learned: Tensors,
        theta: Tensors,
        x_B: Tensor,
        y_B: Tensor,
        stats: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Tensor:
        params = {name: learned[name] for name in self.head.roles} | theta
        return self.whole.family.loss(self.head, params, x_B, y_B, {})

    def inner_state(self, learned: Tensors, theta: Tensors) -> Tensors:
        return self.whole.inner_state(learned, theta)

    def inner_step(
        self, learned: Tensors, k: int, theta: Tensors, gradient: Tensors, state: Tensors, lr: Tensor
    ) -> tuple[Tensors, Tensors]:
        return self.whole.inner_step(learned, k, theta, gradient, state, lr)
