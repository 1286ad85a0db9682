"""What can be set about `reptile`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.maml import OuterConfig


class ReptileConfig(OuterConfig):
    """Reptile: the initialisation moves towards where tasks end.

    The authors' few-shot settings: inner Adam without its first moment (beta1 0) at 0.001, 5 steps on batches of 10,
    `outer_lr` 1 that falls to 0 over the run.
    """

    summary: ClassVar[str] = "the initialisation, pulled towards where tasks end; memory flat in steps"
    source: ClassVar[str] = "Nichol, Achiam, Schulman, 2018, arXiv:1803.02999"

    name: Literal["reptile"] = "reptile"
    outer: Literal["sgd", "adam"] = Field("sgd", description="sgd: the published rule; adam: its step as a gradient")
    outer_lr: float = Field(0.1, gt=0, le=100, description="ε, the share of the way to the tasks' ends (outer sgd)")
    anneal_rounds: int | None = Field(
        None, ge=1, le=10_000_000, description="outer_lr falls linearly to 0 over so many rounds; null: it stays"
    )
