"""What can be set about `none`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.base import InnerLoopConfig
from warploom.configs import ModelConfig, TaskConfig
from warploom.optim.configs import KFACConfig

# Nets of linear and convolutional layers that an input passes once, under a loss on their outputs.
_LAYERED = ("conv4", "warp_conv4", "mlp", "warp_mlp", "vgg", "resnet", "densenet")


class NoMetaConfig(InnerLoopConfig):
    """No meta-training: each task starts from the same random initialisation. The floor to beat."""

    summary: ClassVar[str] = "no meta-training: adaptation from a random initialisation"
    source: ClassVar[str] = "the baseline of every paper"

    name: Literal["none"] = "none"
    preconditioner: KFACConfig | None = Field(
        None, description="turns gradients into natural ones before the inner optimiser steps; null for none"
    )

    def why_unfit(self, task: TaskConfig, model: ModelConfig) -> str | None:
        if self.preconditioner and model.name not in _LAYERED:
            return (
                f"preconditions by K-FAC, which is for nets of linear and convolutional layers, not {model.name!r}; "
                f"models that fit: {', '.join(_LAYERED)}"
            )
        return super().why_unfit(task, model)
