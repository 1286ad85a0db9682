"""What several models have in common. No torch here: the API reads these."""

from __future__ import annotations

from typing import Literal

from warploom.configs import ModelConfig, Role

BatchNormMode = Literal["task", "transductive", "running"]
Activation = Literal["relu", "leaky_relu", "sigmoid", "tanh"]
WARPED: frozenset[Role] = frozenset({"adapt", "warp", "head"})


class NormConfig(ModelConfig):
    """How batch normalisation treats the examples to predict.

    `task`: by the statistics of the task's support set, so that one query at a time equals the batch.
    `running`: by statistics gathered over meta-training. `transductive`: by the queries' own batch, which leaks
    from one query to the next and is here for comparison with papers that do so.
    """

    bn_mode: BatchNormMode = "task"
