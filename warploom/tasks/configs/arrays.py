"""What can be set about `arrays`: bring your own data."""

from __future__ import annotations

from math import prod
from pathlib import PurePosixPath
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from warploom.configs import Kind, TaskConfig


def check_file(value: str, suffixes: tuple[str, ...]) -> str:
    """A path that stays under the data folder and has one of `suffixes`."""
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value or ":" in value:
        raise ValueError(f"must be a path under the data folder, without '..'; got {value!r}")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"must end in {' or '.join(suffixes)}; got {value!r}")
    return value


class ArraysConfig(TaskConfig):
    """Your own examples in one file: a column that names the task of each row, features, and what to predict.

    `target` value: regression on `values` numbers. `target` class: `ways` classes of a task, drawn by chance where a
    task has more, and numbered anew in each task.
    """

    summary: ClassVar[str] = "your own data: an npz or Parquet file with a task column"
    source: ClassVar[str] = "your own file"

    name: Literal["arrays"] = "arrays"
    file: str = Field("arrays.npz", max_length=500, description="path under the data folder, .npz or .parquet")
    target: Literal["value", "class"] = Field("value", description="regression or classification")
    task_column: str = Field("task", min_length=1, description="which task a row belongs to: numbers or text")
    x_columns: tuple[str, ...] = Field(("x",), min_length=1, description="the features, joined in this order")
    y_columns: tuple[str, ...] = Field(("y",), min_length=1, description="the values, joined, or the one class column")
    split_column: str | None = Field(
        None, description="train, validation or test, the same in all rows of a task; null to split by chance"
    )
    features: tuple[int, ...] = Field((1,), min_length=1, max_length=4, description="shape of an example: [1, 28, 28]")
    values: int = Field(1, ge=1, le=10_000, description="numbers to predict (target value)")
    ways: int = Field(5, ge=2, le=1000, description="N, classes in a task (target class)")
    shots: int | None = Field(
        5, ge=1, le=100_000, description="support rows (per class in classification); null for all but the queries"
    )
    queries: int = Field(5, ge=1, le=100_000, description="held-out rows (per class in classification)")
    short_tasks: Literal["refuse", "drop"] = Field("refuse", description="what to do with a task that has too few rows")
    validation_share: float = Field(0.1, ge=0, lt=1, description="share of the tasks")
    test_share: float = Field(0.2, ge=0, lt=1, description="share of the tasks")
    split_seed: int = Field(0, ge=0, lt=2**31, description="which tasks go where")
    standardise: bool = Field(
        False, description="features (and values) in units of the training tasks' own mean and deviation"
    )

    @field_validator("file")
    @classmethod
    def _under_the_data_folder(cls, value: str) -> str:
        return check_file(value, (".npz", ".parquet"))

    @field_validator("features")
    @classmethod
    def _a_shape(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1 or prod(value) > 10_000_000:
            raise ValueError(f"must be sizes from 1, at most 10,000,000 numbers in all; got {list(value)}")
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must leave tasks for training")
        if self.target == "class" and len(self.y_columns) != 1:
            raise ValueError(f"target class takes one y column; got {list(self.y_columns)}")
        names = [self.task_column, *self.x_columns, *self.y_columns, self.split_column]
        if len(set(names)) != len(names):
            raise ValueError(f"each column can be used once; got {[name for name in names if name]}")
        return self

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """By `target`: the one family whose kind is an option."""
        return "classification" if self.target == "class" else "regression"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.features

    @property
    def outputs(self) -> int:
        return self.ways if self.target == "class" else self.values

    @property
    def finite(self) -> bool:
        return True
