"""What can be set about `cosmixture` and `alpine`: random functions of several variables."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.configs import Kind, TaskConfig


class FunctionTaskConfig(TaskConfig):
    """Regression on functions drawn at random; the x of a point is uniform on a cube."""

    kind: ClassVar[Kind] = "regression"

    variant: Literal["slides", "code"] = Field("slides", description="the function as the slides or the code have it")
    dim: int = Field(2, ge=1, le=1000, description="d, variables of the function")
    shots: int = Field(50, ge=1, le=10_000, description="support points")
    queries: int = Field(50, ge=1, le=10_000, description="held-out points")
    tasks: int | None = Field(100, ge=1, le=1_000_000, description="functions in each split; null for no end of them")
    x_max: float = Field(1.0, gt=0, le=100, description="x is uniform on [-x_max, x_max]^d")
    standardise: Literal["train", "all", "none"] = Field(
        "train", description="y in units of the training functions, or of those of all splits as the authors' code does"
    )
    world_seed: int = Field(0, ge=0, lt=2**31, description="which functions there are, when they are finitely many")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def outputs(self) -> int:
        return 1

    @property
    def finite(self) -> bool:
        return self.tasks is not None


class CosMixtureConfig(FunctionTaskConfig):
    """A mixture of cosines on a downward paraboloid."""

    summary: ClassVar[str] = "cosines of random amplitude, frequency and phase on a paraboloid"
    source: ClassVar[str] = "Li et al., AISTATS 2023 (A-MAML), arXiv:2110.08432: its slides and its authors' code"

    name: Literal["cosmixture"] = "cosmixture"


class AlpineConfig(FunctionTaskConfig):
    """The Alpine function with random shifts."""

    summary: ClassVar[str] = "the Alpine function with random shifts"
    source: ClassVar[str] = "Li et al., AISTATS 2023 (A-MAML), arXiv:2110.08432: its slides and its authors' code"

    name: Literal["alpine"] = "alpine"
    x_max: float = Field(10.0, gt=0, le=100, description="x is uniform on [-x_max, x_max]^d")
