"""What can be set about each inner optimiser. No torch here: the API reads these.

The step size of all of them is `inner_lr` of the algorithm. Options have the meaning, and (where there is one) the
default, that they have in torch.optim.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from warploom.configs import NamedConfig

Decay = Annotated[float, Field(ge=0, le=10, description="λ of λ/2 ‖θ‖², added to the loss")]
Average = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, le=1, description="ε, keeps the divisor away from 0")]


class InnerOptimiserConfig(NamedConfig):
    """A rule of the inner step, and its facts.

    `differentiable_in_gradient`: whether the derivative of a step with respect to the gradient says anything; where
    not, `why_not` says why, as a clause whose subject is the optimiser.
    """

    differentiable_in_gradient: ClassVar[bool] = True
    why_not: ClassVar[str] = ""

    @property
    def slots(self) -> int:
        """Numbers that it keeps from step to step for each number that it moves."""
        return 0

    def state_size(self, numbers: int) -> int:
        """How many numbers its state holds beside so many parameters; a count of steps is one of them."""
        return self.slots * numbers + 1 if self.slots else 0


class SGDConfig(InnerOptimiserConfig):
    """Gradient descent, with momentum and decay as in torch.optim.SGD."""

    summary: ClassVar[str] = "gradient descent, with momentum"
    source: ClassVar[str] = "Sutskever, Martens, Dahl, Hinton, ICML 2013"

    name: Literal["sgd"] = "sgd"
    momentum: Average = 0.0
    dampening: Average = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0

    @property
    def slots(self) -> int:
        return 1 if self.momentum else 0

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        return self


class Moments(InnerOptimiserConfig):
    """What Adam and its relatives share."""

    beta1: Average = Field(0.9, description="of the average of gradients")
    beta2: Average = Field(0.999, description="of the average of their squares")
    eps: Epsilon = 1e-8
    weight_decay: Decay = 0.0

    @property
    def slots(self) -> int:
        return 3 if getattr(self, "amsgrad", False) else 2


class AdamConfig(Moments):
    """Adam. A step is about `inner_lr` long in each coordinate: 0.001 to 0.05."""

    summary: ClassVar[str] = "steps of about equal size in each coordinate, by averages of gradients and squares"
    source: ClassVar[str] = "Kingma, Ba, ICLR 2015, arXiv:1412.6980"

    name: Literal["adam"] = "adam"
    amsgrad: bool = Field(False, description="divide by the largest average of squares so far")


class AdamWConfig(Moments):
    """Adam whose decay shrinks the parameters themselves. `inner_lr`: 0.001 to 0.05."""

    summary: ClassVar[str] = "Adam with decay apart from the gradient"
    source: ClassVar[str] = "Loshchilov, Hutter, ICLR 2019, arXiv:1711.05101"

    name: Literal["adamw"] = "adamw"
    amsgrad: bool = Field(False, description="divide by the largest average of squares so far")
    weight_decay: float = Field(0.01, ge=0, le=10, description="λ of θ ← (1 − αλ) θ")


class AMSGradConfig(Moments):
    """Adam that divides by the largest average of squares so far. `inner_lr`: 0.001 to 0.05."""

    summary: ClassVar[str] = "Adam whose steps never grow"
    source: ClassVar[str] = "Reddi, Kale, Kumar, ICLR 2018, arXiv:1904.09237"

    name: Literal["amsgrad"] = "amsgrad"

    @property
    def slots(self) -> int:
        return 3


class AdamaxConfig(InnerOptimiserConfig):
    """Adam by the largest gradient instead of the average square. `inner_lr`: 0.002 to 0.05."""

    summary: ClassVar[str] = "Adam by a decaying maximum of gradients"
    source: ClassVar[str] = "Kingma, Ba, ICLR 2015, arXiv:1412.6980, section 7.1"

    name: Literal["adamax"] = "adamax"
    beta1: Average = Field(0.9, description="of the average of gradients")
    beta2: Average = Field(0.999, description="of the decaying maximum")
    eps: Epsilon = 1e-8
    weight_decay: Decay = 0.0

    @property
    def slots(self) -> int:
        return 2


class AdagradConfig(InnerOptimiserConfig):
    """Adagrad. The first step is `inner_lr` long in each coordinate, later ones shrink: 0.01 to 0.5."""

    summary: ClassVar[str] = "steps that shrink with the sum of squared gradients"
    source: ClassVar[str] = "Duchi, Hazan, Singer, JMLR 2011"

    name: Literal["adagrad"] = "adagrad"
    lr_decay: float = Field(0.0, ge=0, le=100, description="η of α / (1 + (t − 1) η)")
    initial_accumulator: float = Field(0.0, ge=0, le=1e6, description="where the sum of squares starts")
    eps: Epsilon = 1e-10
    weight_decay: Decay = 0.0

    @property
    def slots(self) -> int:
        return 1


class RMSpropConfig(InnerOptimiserConfig):
    """RMSprop. The first step is `inner_lr` / √(1 − alpha) long in each coordinate: `inner_lr` 0.0003 to 0.01."""

    summary: ClassVar[str] = "steps of about equal size in each coordinate, by an average of squared gradients"
    source: ClassVar[str] = "Tieleman, Hinton, lecture 6.5 of Neural Networks for Machine Learning, 2012"

    name: Literal["rmsprop"] = "rmsprop"
    alpha: Average = Field(0.99, description="of the average of squares")
    momentum: Average = 0.0
    centered: bool = Field(False, description="divide by the standard deviation instead of the root mean square")
    eps: Epsilon = 1e-8
    weight_decay: Decay = 0.0

    @property
    def slots(self) -> int:
        return 1 + self.centered + bool(self.momentum)


class AdadeltaConfig(InnerOptimiserConfig):
    """Adadelta. It finds its own step size, slowly, from √eps up; `inner_lr` scales it: 1 to 100."""

    summary: ClassVar[str] = "steps in units of the parameters, by averages of squared gradients and steps"
    source: ClassVar[str] = "Zeiler 2012, arXiv:1212.5701"

    name: Literal["adadelta"] = "adadelta"
    rho: Average = Field(0.9, description="of both averages")
    eps: Epsilon = 1e-6
    weight_decay: Decay = 0.0

    @property
    def slots(self) -> int:
        return 2


class ASGDConfig(InnerOptimiserConfig):
    """Averaged gradient descent. Adapted parameters are the last ones; the average is in the state."""

    summary: ClassVar[str] = "gradient descent with falling steps, and an average of the parameters beside"
    source: ClassVar[str] = "Polyak, Juditsky, SIAM J. Control Optim. 1992"

    name: Literal["asgd"] = "asgd"
    lambd: float = Field(1e-4, ge=0, le=10, description="decay of parameters and of the step size")
    alpha: float = Field(0.75, ge=0, le=10, description="power of the step size's decay")
    t0: float = Field(1e6, ge=0, le=1e12, description="step at which averaging starts")
    weight_decay: Decay = 0.0

    @property
    def slots(self) -> int:
        return 1


class RpropConfig(InnerOptimiserConfig):
    """Resilient propagation. `inner_lr` is the first step in each coordinate: 0.001 to 0.1. For full batches."""

    summary: ClassVar[str] = "steps by the gradient's sign, that grow while it stays and shrink when it turns"
    source: ClassVar[str] = "Riedmiller, Braun, ICNN 1993"
    differentiable_in_gradient: ClassVar[bool] = False
    why_not: ClassVar[str] = "moves by the gradient's sign alone, whose derivative is zero wherever there is one"

    name: Literal["rprop"] = "rprop"
    eta_minus: float = Field(0.5, gt=0, lt=1, description="shrinks a step whose gradient turned")
    eta_plus: float = Field(1.2, gt=1, le=100, description="grows a step whose gradient stayed")
    step_min: float = Field(1e-6, ge=0, le=100)
    step_max: float = Field(50.0, gt=0, le=1e6)

    @property
    def slots(self) -> int:
        return 2

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.step_min > self.step_max:
            raise ValueError(f"step_min ({self.step_min}) must not exceed step_max ({self.step_max})")
        return self


class KFACConfig(NamedConfig):
    """K-FAC: the gradient in the metric of a Kronecker-factored curvature, computed anew at each step.

    Needs the extra `kfac` where tasks adapt.
    """

    summary: ClassVar[str] = "natural gradients by Kronecker-factored curvature"
    source: ClassVar[str] = "Martens, Grosse, ICML 2015, arXiv:1503.05671; Grosse, Martens, ICML 2016 (convolutions)"

    name: Literal["kfac"] = "kfac"
    damping: float = Field(0.01, gt=0, le=1e6, description="δ, added to the eigenvalues of each factor")
    curvature: Literal["exact", "sampled", "empirical"] = Field(
        "exact",
        description="of what the factors are made: all outputs (as many backward passes), labels drawn from the "
        "model's own predictions, or the labels given",
    )


OPTIMISER_CONFIGS: dict[str, type[InnerOptimiserConfig]] = {
    cast("str", config.model_fields["name"].default): config
    for config in (
        SGDConfig,
        AdamConfig,
        AdamWConfig,
        AMSGradConfig,
        AdamaxConfig,
        AdagradConfig,
        RMSpropConfig,
        AdadeltaConfig,
        ASGDConfig,
        RpropConfig,
    )
}


def differentiable() -> list[str]:
    """The names of the inner optimisers that one can differentiate through."""
    return [name for name, config in OPTIMISER_CONFIGS.items() if config.differentiable_in_gradient]


def _pick(value: Any) -> Any:
    """The config that a name, or an object with one, stands for; validated here, so that errors point at its fields."""
    if isinstance(value, InnerOptimiserConfig):
        return value
    if isinstance(value, str):
        value = {"name": value}
    known = ", ".join(OPTIMISER_CONFIGS)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError(f"must be a name, or an object with a 'name', one of: {known}")
    if value["name"] not in OPTIMISER_CONFIGS:
        raise ValueError(f"unknown inner optimiser {value['name']!r}; there are: {known}")
    return OPTIMISER_CONFIGS[value["name"]].model_validate(value)


AnyInnerOptimiser = Annotated[
    SGDConfig
    | AdamConfig
    | AdamWConfig
    | AMSGradConfig
    | AdamaxConfig
    | AdagradConfig
    | RMSpropConfig
    | AdadeltaConfig
    | ASGDConfig
    | RpropConfig,
    Field(discriminator="name"),
    BeforeValidator(_pick),
]
