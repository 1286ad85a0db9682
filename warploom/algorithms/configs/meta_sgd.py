"""What can be set about `meta-sgd`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.maml import UnrolledConfig


class MetaSGDConfig(UnrolledConfig):
    """Meta-SGD: the initialisation, and a step size for each single number that adapts.

    All step sizes start at `inner_lr`. A step size that an adaptation asks for scales the learned ones by its ratio
    to `inner_lr`.
    """

    summary: ClassVar[str] = "MAML with a learned step size for each element of each parameter"
    source: ClassVar[str] = "Li, Zhou, Chen, Li, 2017, arXiv:1707.09835"

    name: Literal["meta-sgd"] = "meta-sgd"
    rates_lr: float = Field(
        0.001, ge=0, le=100, description="the outer step size of the learned step sizes; 0: they stay at inner_lr"
    )

    def beside(self, adapted: Mapping[str, int]) -> int | None:
        return sum(adapted.values())
