"""Small families in any precision, for exact tests of the maths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from warploom.configs import Kind, TaskConfig
from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.types import TaskRef, Tasks


class NoiseImagesConfig(TaskConfig):
    """Random images with random labels."""

    kind: ClassVar[Kind] = "classification"
    name: Literal["noise-images"] = "noise-images"
    size: int = 8
    classes: int = 3
    support: int = 9
    query: int = 6

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.size, self.size)

    @property
    def outputs(self) -> int:
        return self.classes


class NoiseCurvesConfig(TaskConfig):
    """Random points of random functions of two inputs."""

    kind: ClassVar[Kind] = "regression"
    name: Literal["noise-curves"] = "noise-curves"
    support: int = 8
    query: int = 5

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def outputs(self) -> int:
        return 2


class Noise(TaskFamily[NoiseImagesConfig | NoiseCurvesConfig]):
    """Gaussian inputs; labels or targets at random; float64 unless told otherwise."""

    dtype = torch.float64

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        drawn = [self._one(ref) for ref in refs]
        return Tasks(tuple(refs), *(torch.stack([d[i] for d in drawn]) for i in range(4)))

    def _one(self, ref: TaskRef) -> tuple[torch.Tensor, ...]:
        gen = generator("noise", ref.split, ref.index, ref.seed)
        config = self.config
        parts: list[torch.Tensor] = []
        for count in (config.support, config.query):
            parts.append(torch.randn(count, *config.input_shape, generator=gen, dtype=self.dtype))
            if config.kind == "classification":
                labels = torch.arange(count) % config.outputs
                parts.append(labels[torch.randperm(count, generator=gen)])
            else:
                parts.append(torch.randn(count, config.outputs, generator=gen, dtype=self.dtype))
        return tuple(parts)


def doubled(meta):
    """The meta-state in float64, with every parameter moved a little so that none sits at a special value."""
    gen = torch.Generator().manual_seed(5)
    from dataclasses import replace

    params = {
        name: value.double() + 0.1 * torch.randn(value.shape, generator=gen, dtype=torch.float64)
        for name, value in meta.params.items()
    }
    return replace(meta, params=params, stats={name: value.double() for name, value in meta.stats.items()})
