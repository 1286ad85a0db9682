"""What can be set about each inner optimiser. No torch here: the API reads these."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from warploom.configs import Config


class SGDConfig(Config):
    """Gradient descent, with momentum and decay as in torch.optim.SGD."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(0.0, ge=0, lt=1)
    dampening: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(0.0, ge=0, le=10)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        return self


def _from_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


AnyInnerOptimiser = Annotated[SGDConfig, BeforeValidator(_from_name)]
