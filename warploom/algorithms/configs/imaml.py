"""What can be set about `imaml`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.implicit import ImplicitConfig


class IMAMLConfig(ImplicitConfig):
    """iMAML: the centre of a proximal term, by the gradient of the inner optimum.

    Inner solvers: `inner_optimiser` sgd (with `nesterov`: Nesterov's), adam and others, or `inner_solver` hessian-free.
    The authors' command for Omniglot 5-way 1-shot: `form` authors, inner_lr 0.1, inner_steps 16, proximal 2, cg_steps
    5, damping 1, outer adam at 0.001, 32 tasks per round, 20,000 rounds. Their steps are free of the proximal term;
    with it in every step, as in `form` paper, 2 leaves an image task too little room to adapt.
    """

    summary: ClassVar[str] = "the initialisation, by the implicit gradient of a proximal inner problem"
    source: ClassVar[str] = "Rajeswaran, Finn, Kakade, Levine, NeurIPS 2019, arXiv:1909.04630"

    name: Literal["imaml"] = "imaml"
    proximal: float = Field(0.5, gt=0, le=1e6, description="λ, the strength of the proximal term")
    cg_steps: int = Field(5, ge=0, le=1000, description="CG steps of the meta-gradient; 0: the first-order gradient")
    cg_tolerance: float = Field(1e-6, ge=0, lt=1, description="relative residual at which CG stops")
    damping: float = Field(0.0, ge=0, le=1e6, description="added to the diagonal of the matrix I + H/λ")
    form: Literal["paper", "authors"] = Field(
        "paper",
        description="authors: as their code does, steps without the proximal term, then one gradient step of that term "
        "alone, and (1 + damping) I + H/(λ + 10) for the matrix",
    )
