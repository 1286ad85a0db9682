"""What several models have in common. No torch here: the API reads these."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import Field, model_validator

from warploom.configs import ModelConfig, Role

BatchNormMode = Literal["task", "transductive", "running"]
Activation = Literal["relu", "leaky_relu", "sigmoid", "tanh"]
WARPED: frozenset[Role] = frozenset({"adapt", "warp", "head"})


def linear(name: str, wide: int, out: int, *, bias: bool = True) -> dict[str, int]:
    """Sizes of a linear layer's parameters."""
    return {f"{name}.weight": wide * out, **({f"{name}.bias": out} if bias else {})}


def convolution(name: str, channels: int, filters: int, kernel: int = 3, *, bias: bool = True) -> dict[str, int]:
    """Sizes of a convolution's parameters."""
    return linear(name, channels * kernel * kernel, filters, bias=bias)


def scaled(*names: str, channels: int) -> dict[str, int]:
    """Sizes of layers with a scale and a shift for each channel: batch normalisation, FiLM."""
    return {f"{name}.{kind}": channels for name in names for kind in ("weight", "bias")}


class PatternConfig(ModelConfig):
    """Layers of a standard net designated as warp by their names.

    A model that takes this on lists its parameters in `parameters` and asks `role` for the role of each.
    """

    warp_pattern: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="parameters to hold fixed while a task adapts and to meta-learn as warp, by patterns of their "
        "names as of a shell (`conv1.*`, `norm*`)",
    )

    def parameters(self) -> list[str]:
        """The names of the parameters that patterns may designate, in the net's order."""
        raise NotImplementedError(f"{type(self).__name__} does not list its parameters")

    def plain_role(self, name: str) -> Role:
        """The role of a parameter that no pattern matches."""
        return super().role(name)

    def role(self, name: str) -> Role:
        """The role of the parameter `name`."""
        designated = any(fnmatchcase(name, pattern) for pattern in self.warp_pattern)
        return "warp" if designated else self.plain_role(name)

    def provided(self) -> frozenset[Role]:
        return frozenset(self.role(name) for name in self.parameters()) | (self.provides - {"adapt", "head"})

    @model_validator(mode="after")
    def _patterns_match(self) -> Self:
        for pattern in self.warp_pattern:
            if not any(fnmatchcase(name, pattern) for name in self.parameters()):
                raise ValueError(
                    f"warp_pattern {pattern!r} matches no parameter; there are: {', '.join(self.parameters())}"
                )
        return self


class NormConfig(ModelConfig):
    """How batch normalisation treats the examples to predict.

    `task`: by the statistics of the task's support set, so that one query at a time equals the batch.
    `running`: by statistics gathered over meta-training. `transductive`: by the queries' own batch, which leaks
    from one query to the next and is here for comparison with papers that do so.
    """

    bn_mode: BatchNormMode = "task"
