"""What can be set about `mlp` and `warp_mlp`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.configs import ModelConfig, Role
from warploom.models.configs.base import WARPED, Activation


class MLPConfig(ModelConfig):
    """Linear layers with an activation between them."""

    summary: ClassVar[str] = "fully connected net"
    source: ClassVar[str] = "Finn, Abbeel, Levine, ICML 2017 (1-40-40-1 on sine waves)"

    name: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = Field((40, 40), min_length=1, max_length=16)
    activation: Activation = "relu"


class WarpMLPConfig(MLPConfig):
    """`mlp` with a square linear warp layer after each hidden activation."""

    summary: ClassVar[str] = "fully connected net with a linear warp layer after each hidden layer"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, Figure 6"
    provides: ClassVar[frozenset[Role]] = WARPED

    name: Literal["warp_mlp"] = "warp_mlp"  # type: ignore[assignment]
    warp_activation: Activation | None = None
    warp_residual: bool = True
