"""What can be set about `ratings`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from warploom.configs import Kind, TaskConfig
from warploom.tasks.configs.arrays import check_file

GENRES = {"ml-100k": 19, "ml-1m": 18}


class RatingsConfig(TaskConfig):
    """One user is one task: from a few ratings of theirs, foretell others.

    Item features are this project's own choice, as the paper's are not known: each item's factors in a truncated SVD
    of the training users' ratings, or the genres of MovieLens.
    """

    kind: ClassVar[Kind] = "regression"
    summary: ClassVar[str] = "one user is one task: MovieLens, Jester, any table of ratings, or a generated world"
    source: ClassVar[str] = "Li et al., AISTATS 2023 (A-MAML), arXiv:2110.08432, collaborative filtering"

    name: Literal["ratings"] = "ratings"
    data: Literal["generated", "ml-100k", "ml-1m", "jester", "file"] = Field(
        "generated",
        description="a low-rank world made here; MovieLens as it is shipped; jester-data-1 saved as CSV; or `file`",
    )
    file: str | None = Field(
        None, max_length=500, description="data file: path under the data folder, .csv (with a header) or .parquet"
    )
    user_column: str = Field("user", min_length=1)
    item_column: str = Field("item", min_length=1)
    rating_column: str = Field("rating", min_length=1)
    features: Literal["factors", "genres"] = Field("factors", description="of an item; genres are known for MovieLens")
    factors: int = Field(20, ge=1, le=1000, description="d, singular vectors kept; the paper's inputs have 100 numbers")
    shots: int = Field(10, ge=1, le=10_000, description="support ratings of a user")
    queries: int = Field(15, ge=1, le=10_000, description="held-out ratings of a user")
    test_users: int = Field(100, ge=1, le=10_000_000, description="users with enough ratings, for test")
    validation_users: int = Field(50, ge=0, le=10_000_000, description="users with enough ratings, for validation")
    split_seed: int = Field(0, ge=0, lt=2**31, description="which users go where")
    users: int = Field(400, ge=2, le=100_000, description="generated: users")
    items: int = Field(120, ge=2, le=10_000, description="generated: items")
    rank: int = Field(4, ge=1, le=1000, description="generated: numbers that tell a taste")
    rated: int = Field(60, ge=2, le=10_000, description="generated: items that each user has rated")
    noise: float = Field(0.2, ge=0, le=100, description="generated: deviation of a rating from the user's taste")
    world_seed: int = Field(0, ge=0, lt=2**31, description="generated: which world")

    @field_validator("file")
    @classmethod
    def _under_the_data_folder(cls, value: str | None) -> str | None:
        return None if value is None else check_file(value, (".csv", ".parquet"))

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.data == "file") != (self.file is not None):
            raise ValueError("data 'file' goes with a file, and a file with data 'file'")
        if self.features == "genres" and self.data not in GENRES:
            raise ValueError(f"genres are known for {' and '.join(GENRES)} only; use features 'factors'")
        if len({self.user_column, self.item_column, self.rating_column}) < 3:
            raise ValueError("user_column, item_column and rating_column must differ")
        return self if self.data != "generated" else self._sound_world()

    def _sound_world(self) -> Self:
        train = self.users - self.test_users - self.validation_users
        if train < 1:
            raise ValueError("users must exceed test_users + validation_users")
        if self.features == "factors" and self.factors > min(train, self.items):
            raise ValueError(f"factors must be at most items ({self.items}) and training users ({train})")
        if not self.shots + self.queries <= self.rated <= self.items:
            raise ValueError("rated must be at least shots + queries and at most items")
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.factors if self.features == "factors" else GENRES[self.data],)

    @property
    def outputs(self) -> int:
        return 1

    @property
    def finite(self) -> bool:
        return True
