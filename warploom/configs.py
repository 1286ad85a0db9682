"""What every configuration of an algorithm, a task family or a model has in common.

These classes load no torch, so that the API can check a job at the door. They state facts (`kind`, `provides`,
`needs`) and leave the building to `warploom.build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["classification", "regression"]
Role = Literal["adapt", "warp", "head", "frozen"]


class Config(BaseModel):
    """A frozen, closed value: unknown fields are refused, numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NamedConfig(Config):
    """A configuration chosen by name from a table (`warploom.registry`)."""

    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    implementation: ClassVar[str] = ""
    """Of a plugin's entry: what implements it, as `module:name` (`warploom.plugins`); built-in ones have a table."""

    name: str


class AlgorithmConfig(NamedConfig):
    """Facts that every algorithm states about itself.

    `needs` lists the parameter roles that the model must have.
    """

    needs: ClassVar[frozenset[Role]] = frozenset()
    adapted: ClassVar[frozenset[Role]] = frozenset({"adapt", "head"})
    """The roles of the parameters that a task moves."""

    @property
    def points(self) -> int:
        """States of a task's path that go into the replay buffer; 0 where a task hands over a ready gradient."""
        return 0

    def beside(self, adapted: Mapping[str, int]) -> int | None:  # noqa: ARG002
        """Numbers that are learned beside the model's parameters; None where the configuration does not say.

        Args:
            adapted: sizes of the parameters that a task moves, by name.
        """
        return 0

    def why_unfit(self, task: TaskConfig, model: ModelConfig) -> str | None:  # noqa: ARG002
        """Why this algorithm cannot learn with such a task or model, with what would fit; None when it can.

        A sentence without its subject: "needs a regression task, …; use sinusoid". Roles of parameters are checked
        apart, by `needs`.
        """
        return None


class TaskConfig(NamedConfig):
    """Facts that every task family states about itself."""

    kind: ClassVar[Kind] = "classification"
    only_with: ClassVar[frozenset[str]] = frozenset()
    """The models that it goes with, by name; empty for any that takes its inputs."""
    own_loss: ClassVar[bool] = False
    """Whether its loss is another than cross-entropy or squared error of single outputs (`TaskFamily.loss`)."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, without the batch dimension."""
        raise NotImplementedError(f"{type(self).__name__} does not say its input shape")

    @property
    def outputs(self) -> int:
        """Number of classes, or of regression targets."""
        raise NotImplementedError(f"{type(self).__name__} does not say its outputs")

    @property
    def finite(self) -> bool:
        """Whether there are finitely many training tasks, each with a number (`TaskFamily.identity`)."""
        return False


class ModelConfig(NamedConfig):
    """Facts that every model states about itself: the roles its parameters have, the inputs it takes."""

    provides: ClassVar[frozenset[Role]] = frozenset({"adapt", "head"})
    only_for: ClassVar[frozenset[str]] = frozenset()
    """The task families that it was made for, by name; empty for any whose inputs it takes."""

    def provided(self) -> frozenset[Role]:
        """The roles of this model's parameters, where options can change those that its kind `provides`."""
        return self.provides

    def role(self, name: str) -> Role:
        """The role of the parameter `name`."""
        return "head" if name.startswith("head") else "adapt"

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:
        """How many numbers each parameter holds, by name, for such inputs.

        Raises:
            NotImplementedError: this model does not say; an estimate then leaves out what depends on it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say its sizes")

    def why_unfit(self, input_shape: tuple[int, ...], outputs: int) -> str | None:  # noqa: ARG002
        """Why this model cannot take such inputs (a sentence that says what would fit), or None when it can."""
        return None


def schema_of(config: type[NamedConfig]) -> dict[str, Any]:
    """The JSON schema of a configuration, for the catalogue."""
    return config.model_json_schema()
