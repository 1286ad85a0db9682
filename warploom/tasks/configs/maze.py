"""What can be set about `maze`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from warploom.configs import Kind, TaskConfig

ACTIONS = 4
OBSERVATION = 17  # 3x3 view, four auxiliary numbers, the last action one-hot


class MazeConfig(TaskConfig):
    """A square maze with pillars and an invisible goal; the learner walks, and is thrown back when it finds it."""

    kind: ClassVar[Kind] = "regression"
    summary: ClassVar[str] = "walk a maze with an invisible goal, by actor-critic; for recurrent nets"
    source: ClassVar[str] = "Miconi et al., ICLR 2019 (Backpropamine); maze experiment of Flennerhag et al., ICLR 2020"

    own_loss: ClassVar[bool] = True
    only_with: ClassVar[frozenset[str]] = frozenset({"rnn", "plastic_rnn", "warp_rnn"})

    name: Literal["maze"] = "maze"
    cells: int = Field(7, ge=5, le=31, description="cells a side inside the outer wall, odd; the papers have 11")
    horizon: int = Field(50, ge=2, le=1000, description="steps in an episode; the papers have 200")
    episodes: int = Field(10, ge=1, le=10_000, description="support episodes of a task")
    query_episodes: int = Field(10, ge=1, le=10_000, description="held-out episodes of a task")
    goal: Literal["episode", "task"] = Field("episode", description="draw a goal for each episode, or one for the task")
    reward: float = Field(10.0, gt=0, le=1000)
    wall_penalty: float = Field(0.0, ge=0, le=1000)
    discount: float = Field(0.9, ge=0, lt=1, description="γ of the return that the critic foretells")
    value_weight: float = Field(0.1, ge=0, le=100, description="weight of the critic's squared error")
    spread_weight: float = Field(0.03, ge=0, le=100, description="weight of Σ p², which keeps the policy spread out")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.cells % 2 == 0:
            raise ValueError(f"cells must be odd, so that pillars and corridors alternate; got {self.cells}")
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2 * self.horizon + 1,)

    @property
    def outputs(self) -> int:
        return 2
