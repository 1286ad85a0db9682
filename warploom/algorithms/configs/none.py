"""What can be set about `none`."""

from __future__ import annotations

from typing import ClassVar, Literal

from warploom.algorithms.configs.base import InnerLoopConfig


class NoMetaConfig(InnerLoopConfig):
    """No meta-training: each task starts from the same random initialisation. The floor to beat."""

    summary: ClassVar[str] = "no meta-training: adaptation from a random initialisation"
    source: ClassVar[str] = "the baseline of every paper"

    name: Literal["none"] = "none"
