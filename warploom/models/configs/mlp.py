"""What can be set about `mlp` and `warp_mlp`."""

from __future__ import annotations

from math import prod
from typing import ClassVar, Literal

from pydantic import Field

from warploom.configs import Role
from warploom.models.configs.base import WARPED, Activation, PatternConfig, linear, scaled


class MLPConfig(PatternConfig):
    """Linear layers with an activation between them."""

    summary: ClassVar[str] = "fully connected net"
    source: ClassVar[str] = "Finn, Abbeel, Levine, ICML 2017 (1-40-40-1 on sine waves)"

    name: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = Field((40, 40), min_length=1, max_length=16)
    activation: Activation = "relu"

    def parameters(self) -> list[str]:
        layers = [*(f"layer{i}" for i in range(len(self.hidden))), "head"]
        return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:
        width = prod(input_shape)
        found: dict[str, int] = {}
        for i, hidden in enumerate(self.hidden):
            found |= linear(f"layer{i}", width, hidden) | self.after(i, hidden)
            width = hidden
        return found | linear("head", width, outputs)

    def after(self, i: int, width: int) -> dict[str, int]:  # noqa: ARG002
        """Sizes of what stands behind hidden layer i."""
        return {}


class WarpMLPConfig(MLPConfig):
    """`mlp` with a warp layer after each hidden activation, held fixed while a task adapts."""

    summary: ClassVar[str] = "fully connected net with a warp after each hidden layer: linear, a scaling or a gate"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, Figure 6"
    provides: ClassVar[frozenset[Role]] = WARPED

    name: Literal["warp_mlp"] = "warp_mlp"  # type: ignore[assignment]
    warp_kind: Literal["linear", "film", "gate"] = Field(
        "linear",
        description="a square matrix; film: a scale and a shift for each unit; gate: the input times an activation of "
        "a square matrix of it",
    )
    warp_activation: Activation | None = Field(
        None, description="after the warp; of a gate, what the input is multiplied by, null for sigmoid"
    )
    warp_residual: bool = Field(True, description="add the warp layer's input to its output")

    def after(self, i: int, width: int) -> dict[str, int]:
        """Sizes of the warp behind hidden layer i."""
        if self.warp_kind == "film":
            return scaled(f"warp{i}.scaling", channels=width)
        return linear(f"warp{i}.linear", width, width)

    def plain_role(self, name: str) -> Role:
        return "warp" if name.startswith("warp") else super().plain_role(name)
