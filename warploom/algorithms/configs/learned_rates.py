"""What can be set about `learned-rates`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.windows import WindowConfig


class LearnedRatesConfig(WindowConfig):
    """A step size for each parameter tensor, learned by backpropagation through the inner loop."""

    summary: ClassVar[str] = "a step size per parameter tensor, by backpropagation through the inner loop"
    source: ClassVar[str] = "Grefenstette et al., 2019, arXiv:1910.01727, section 5.1"

    name: Literal["learned-rates"] = "learned-rates"
    per_step: bool = Field(False, description="a step size for each of the inner steps, too")
    rates_lr: float = Field(0.03, gt=0, le=100, description="outer step size for the factors of inner_lr")

    def beside(self, adapted: Mapping[str, int]) -> int | None:
        return len(adapted) * (self.inner_steps if self.per_step else 1)
