"""What can be set about `point` and `warp_point`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.configs import ModelConfig, Role
from warploom.models.configs.base import linear
from warploom.tasks.configs.surfaces import SURFACE_ROW


class PointConfig(ModelConfig):
    """A point of the plane that moves: two parameters, added to the place where the task starts."""

    summary: ClassVar[str] = "a point of the plane, for surfaces"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, appendix D"
    provides: ClassVar[frozenset[Role]] = frozenset({"adapt"})

    name: Literal["point"] = "point"
    spread: float = Field(
        0.01, ge=0, le=10, description="θ_0 is normal with this standard deviation; 0 leaves the task's start as it is"
    )

    def role(self, name: str) -> Role:
        return "warp" if name.startswith("warp") else "adapt"

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:  # noqa: ARG002
        return {"theta": 2}

    def why_unfit(self, input_shape: tuple[int, ...], outputs: int) -> str | None:
        if input_shape != (SURFACE_ROW,) or outputs != SURFACE_ROW:
            return (
                f"moves the place that a row of {SURFACE_ROW} numbers starts with, and cannot map inputs of shape "
                f"{input_shape} to {outputs} outputs; it goes with task surfaces, other tasks with mlp or warp_mlp"
            )
        return None


class WarpPointConfig(PointConfig):
    """`point` seen through a learned map Ω of the plane, held fixed while a task adapts."""

    summary: ClassVar[str] = "a point of the plane behind a learned map, for surfaces"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, appendix D: two layers, 30 hidden units, tanh"
    provides: ClassVar[frozenset[Role]] = frozenset({"adapt", "warp"})

    name: Literal["warp_point"] = "warp_point"  # type: ignore[assignment]
    warp_hidden: int = Field(30, ge=1, le=10_000)
    warp_residual: bool = Field(True, description="Ω(x) = x + net(x), the identity at first; false: the net alone")

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:
        warp = linear("warp.first", 2, self.warp_hidden) | linear("warp.second", self.warp_hidden, 2)
        return super().sizes(input_shape, outputs) | warp
