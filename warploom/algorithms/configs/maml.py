"""What can be set about `maml`, and what algorithms of its kind have in common."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.base import InnerLoopConfig


class OuterConfig(InnerLoopConfig):
    """An inner loop, and an outer optimiser for all meta-parameters at one step size."""

    outer: Literal["sgd", "adam"] = "adam"
    outer_lr: float = Field(0.001, gt=0, le=100, description="β, the outer step size")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of a meta-gradient; null for none")


class UnrolledConfig(OuterConfig):
    """Backpropagation through the inner loop; memory grows with the steps that it goes through."""

    inner_steps: int = Field(5, ge=1, le=10_000, description="K, the steps of adaptation")
    truncate: int | None = Field(
        None, ge=0, le=10_000, description="backpropagate through the last n steps only; null for all of them"
    )

    @property
    def through_inner_loop(self) -> bool:
        return self.truncate != 0

    @property
    def cut(self) -> int:
        """The first steps, through which nothing is backpropagated."""
        return 0 if self.truncate is None else max(0, self.inner_steps - self.truncate)


class MAMLConfig(UnrolledConfig):
    """MAML: the initialisation from which a few steps do well, by backpropagation through the steps."""

    summary: ClassVar[str] = "the initialisation, by backpropagation through the inner loop"
    source: ClassVar[str] = "Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400"

    name: Literal["maml"] = "maml"
