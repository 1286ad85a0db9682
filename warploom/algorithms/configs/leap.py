"""What can be set about `leap`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.maml import OuterConfig


class LeapConfig(OuterConfig):
    """Leap: the initialisation from which paths of adaptation are short.

    The paper's Omniglot experiment has 100 inner steps on batches of 20, `outer` sgd, and both step sizes 0.1.
    """

    summary: ClassVar[str] = "the initialisation, by the length of the paths of adaptation; memory flat in steps"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2019, arXiv:1812.01054"

    name: Literal["leap"] = "leap"
    metric: Literal["length", "energy"] = Field(
        "length", description="what is made small: the sum of the segments' lengths, or of their squares"
    )
    loss_term: bool = Field(True, description="the loss is a coordinate of the path, beside the parameters")
    stabilise: bool = Field(True, description="count a step that raised the loss as one that lowered it")
