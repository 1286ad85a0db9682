"""What can be set about `fomaml`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.algorithms.configs.maml import OuterConfig


class FOMAMLConfig(OuterConfig):
    """First-order MAML: the gradient of the queries where adaptation ends, taken for that where it starts."""

    summary: ClassVar[str] = "the initialisation, by the queries' gradient at the end of the inner loop"
    source: ClassVar[str] = "Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, section 5.2"

    name: Literal["fomaml"] = "fomaml"
    inner_steps: int = Field(5, ge=1, le=10_000, description="K, the steps of adaptation")
