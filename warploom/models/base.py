"""What a model is: a stateless net, a role for each parameter, and an initialisation by seed.

Shape suffixes: T tasks, B batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warploom.configs import Kind, Role
from warploom.errors import InvalidInput
from warploom.models.configs.base import BatchNormMode
from warploom.seeding import derive
from warploom.threads import own_module
from warploom.types import Tensors

# Held while a module is made: all threads of a process draw from torch's one generator.
_CHANCE = threading.Lock()

# Set while T tasks are computed in one vectorised call, where tensors cannot be asked for their memory layout.
VECTORISED: ContextVar[bool] = ContextVar("warploom_vectorised", default=False)


@dataclass(frozen=True, slots=True)
class Model:
    """A net to be called with its parameters from outside.

    Args:
        module: says the computation; its own parameters are never used as values.
        factory: makes a fresh module, with torch's global generator as the only source of chance.
        roles: role of each parameter by name.
        kind: classification (logits, cross-entropy) or regression (values, squared error).
        bn_mode: how `BatchNorm` layers treat the examples to predict.
        convolutional: whether it holds convolutions; on a CPU these run faster task by task than vectorised.
    """

    module: nn.Module
    factory: Callable[[], nn.Module]
    roles: Mapping[str, Role]
    kind: Kind
    bn_mode: BatchNormMode = "task"
    convolutional: bool = False

    def names(self, *roles: Role) -> list[str]:
        """The parameters of these roles, in the module's order."""
        return [name for name, role in self.roles.items() if role in roles]

    def initial(self, seed: int) -> Tensors:
        """Freshly initialised parameters; the global random state is left as it was."""
        with _CHANCE, torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "model"))
            module = self.factory()
        return {name: value.detach().clone() for name, value in module.named_parameters()}

    def norms(self) -> dict[str, BatchNorm]:
        """The batch normalisation layers by name."""
        return {name: layer for name, layer in own_module(self.module).named_modules() if isinstance(layer, BatchNorm)}


def make_model(
    factory: Callable[[], nn.Module],
    role_of: Callable[[str], Role],
    kind: Kind,
    *,
    bn_mode: BatchNormMode = "task",
) -> Model:
    """A `Model` whose parameters have the roles that `role_of` gives to their names.

    Raises:
        InvalidInput: the module holds a normalisation layer with hidden state, which would leak between tasks.
    """
    with _CHANCE:
        module = factory()
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise InvalidInput(
                f"layer {name!r} keeps running statistics inside the module; use warploom.models.base.BatchNorm",
                field="/model",
                rule="no torch BatchNorm layers",
                value=type(layer).__name__,
            )
    return Model(
        module=module,
        factory=factory,
        roles={name: role_of(name) for name, _ in module.named_parameters()},
        kind=kind,
        bn_mode=bn_mode,
        convolutional=any(isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) for layer in module.modules()),
    )


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics are handed to it, never kept by it.

    y = γ (x − μ) / √(σ² + ε) + β over all but the channel dimension. With the buffers `mean` and `var` empty (as
    built) μ and σ² are those of the batch; with values put in their place, those. So the layer has no mode and no
    hidden state, and works under `torch.func`.

    Args:
        channels: size of dimension 1.
        eps: ε.

    Example:
        >>> BatchNorm(3)(torch.randn(8, 3)).mean().abs() < 1e-5
        tensor(True)
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.empty(0), persistent=False)
        self.register_buffer("var", torch.empty(0), persistent=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, ...]."""
        if self.mean.numel() == 0:
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        # Written out, because torch's own function gives no derivative with respect to the statistics.
        scale = self.weight * torch.rsqrt(self.var + self.eps)
        shift = self.bias - self.mean * scale
        shape = (-1,) + (1,) * (x.ndim - 2)
        return x * scale.view(shape) + shift.view(shape)


class Scaling(nn.Module):
    """FiLM-like scaling: γ ⊙ h + β with one γ and one β for each channel (dimension 1).

    It starts as the identity, or as zero where the input is added to it afterwards.

    Source: Perez et al., AAAI 2018, arXiv:1709.07871, without the task embedding, as in WarpGrad's Table 3.
    """

    def __init__(self, channels: int, residual: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels) if residual else torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor) -> Tensor:
        """Scale [B, C, ...]."""
        shape = (-1,) + (1,) * (h.ndim - 2)
        return h * self.weight.view(shape) + self.bias.view(shape)


def activation(name: str) -> nn.Module:
    """The activation layer of this name, as in the models' configs."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
    }
    return layers[name]()
