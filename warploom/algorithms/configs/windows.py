"""What algorithms that unroll the inner loop window by window can be told. No torch here: the API reads these."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from warploom.algorithms.configs.maml import OuterConfig


class WindowConfig(OuterConfig):
    """Backpropagation through the inner loop, cut into windows of steps."""

    inner_steps: int = Field(5, ge=1, le=10_000, description="K, the steps of adaptation")
    initialisation: Literal["learned", "fixed"] = Field(
        "learned", description="learned: the initialisation moves too; fixed: it stays as it was drawn"
    )
    window: int | None = Field(
        None, ge=1, le=10_000, description="backpropagate through so many steps at a time; null for all of them"
    )
    loss_at: Literal["last", "every"] = Field(
        "last", description="queries count after the last step of each window, or after every step"
    )

    @property
    def through_inner_loop(self) -> bool:
        return True
