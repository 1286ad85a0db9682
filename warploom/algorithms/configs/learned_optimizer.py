"""What can be set about `learned-optimizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.windows import WindowConfig


class LearnedOptimizerConfig(WindowConfig):
    """A small coordinatewise net bends the step of the inner optimiser, learned through the loop."""

    summary: ClassVar[str] = "the inner optimiser: a small net for each coordinate, by backpropagation through the loop"
    source: ClassVar[str] = "Andrychowicz et al., NeurIPS 2016, arXiv:1606.04474"

    name: Literal["learned-optimizer"] = "learned-optimizer"
    inner_steps: int = Field(10, ge=1, le=10_000, description="K, the steps of adaptation")
    loss_at: Literal["last", "every"] = Field("every", description="queries count after every step, or at the end")
    cell: Literal["mlp", "lstm"] = "mlp"
    hidden: int = Field(16, ge=1, le=256, description="width of the net")
    decays: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.5, 0.9, 0.99), max_length=8, description="moving averages of the gradient that the net sees"
    )
    first_order: bool = Field(True, description="take inner gradients as constants, as the source does")
    net_lr: float = Field(0.01, gt=0, le=100, description="outer step size for the net")
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of a meta-gradient; null for none")

    @property
    def through_inner_loop(self) -> bool:
        return not self.first_order

    def beside(self, adapted: Mapping[str, int]) -> int | None:  # noqa: ARG002
        width, seen, ends = self.hidden, 2 * (1 + len(self.decays)), 2 * self.hidden + 2
        return 4 * width * (seen + width + 1) + ends if self.cell == "lstm" else width * (seen + 1) + ends
