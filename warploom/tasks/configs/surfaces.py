"""What can be set about `surfaces`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.configs import Kind, TaskConfig

SURFACE_ROW = 9  # a place (2) and the coefficients of a surface (7)


class SurfacesConfig(TaskConfig):
    """Find the lowest place of a random surface over the plane, from a random start."""

    kind: ClassVar[Kind] = "regression"
    summary: ClassVar[str] = "random surfaces over the plane: a task is to walk down one of them from a random start"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, arXiv:1909.00025, appendix D"
    own_loss: ClassVar[bool] = True

    name: Literal["surfaces"] = "surfaces"
    starts: int = Field(10, ge=1, le=10_000, description="tasks in a row on one surface, each with its own start")
    start_max: float = Field(3.0, gt=0, le=10, description="a start is uniform on [-start_max, start_max]²")
    printed: bool = Field(False, description="the last term with x1² where MATLAB's peaks has x2², as the paper prints")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (SURFACE_ROW,)

    @property
    def outputs(self) -> int:
        return SURFACE_ROW
