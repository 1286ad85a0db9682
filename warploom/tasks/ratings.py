"""Collaborative filtering: one user is one task.

Shape suffixes: T tasks, S support, Q query, N ratings, U users, I items, D features of an item.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from warploom.errors import InvalidInput
from warploom.seeding import derive, generator
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.ratings import RatingsConfig
from warploom.tasks.data import OneTask, data_root, pick_of_epoch, stack
from warploom.tasks.rating_files import Table, read_jester, read_movielens_1m, read_movielens_100k, read_table
from warploom.types import Split, TaskRef, Tasks

SPARE, ITERATIONS = 10, 50


class World(NamedTuple):
    """What tasks are cut from.

    Args:
        features: of each item, [I, D] float32.
        item, y: of each rating, grouped by user: [N] int64, and [N, 1] float32 in units of the training ratings.
        rows: where each usable user's ratings lie in these, by split: (start, stop).
        names: those users' names, by split.
    """

    features: Tensor
    item: Tensor
    y: Tensor
    rows: dict[Split, list[tuple[int, int]]]
    names: dict[Split, list[str]]


class Ratings(TaskFamily[RatingsConfig]):
    """From `shots` ratings of a user, foretell `queries` others; x is the item, y the standardised rating.

    Users with fewer ratings than that are left out. The rest go by a hash of their names: `test_users` to test,
    `validation_users` to validation, all others to training. Mean and deviation of the ratings, and the items'
    factors, come from the training users alone, so nothing about a held-out user is known before their support set.
    (Training users' own queries did shape the factors; that a held-out user's did not is what makes test honest.)

    Factors: with R the training users' standardised ratings and zeros for what they did not rate, R ≈ U_D S_D V_Dᵀ,
    the features of item i are row i of V_D S_D, scaled so that their mean square over rated items is 1; the
    largest entry of each column is positive. An item that no training user rated has zeros.

    Generated world: rating = b_u + b_i + p_u · q_i / √rank + noise, all standard normal but b_u and b_i with
    deviation 0.5.

    Args:
        config: see `RatingsConfig`.

    Raises:
        DataMissing: the publisher's files are not under the data folder; the message has the address.
        WireError: a file is not of the publisher's format; the message has the line.
        InvalidInput: too few users, or too many factors.

    Example:
        >>> tuple(Ratings(RatingsConfig()).sample([TaskRef("test", 0, seed=1)]).support_x.shape)
        (1, 10, 20)

    Source: Li et al., AISTATS 2023 (A-MAML): 10 + 15 and 20 + 30 ratings, 100 test users, inputs of 100 numbers.
    Departures: the paper does not say what its item features are; those here are our own.
    """

    def __init__(self, config: RatingsConfig) -> None:
        super().__init__(config)
        self._world = _world(config, str(data_root()) if config.data != "generated" else "")

    def size(self, split: Split) -> int | None:
        """How many users `split` has."""
        return len(self._world.rows[split])

    def identity(self, ref: TaskRef) -> int | None:
        """The number of the user."""
        count = len(self._world.rows[ref.split])
        return pick_of_epoch(ref, count) if count else None

    def users(self, split: Split) -> list[str]:
        """The names of the split's users."""
        return list(self._world.names[split])

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name; each epoch of refs goes once through the users of the split.

        Returns:
            Tasks with x [T, S, D] and [T, Q, D], y [T, S, 1] and [T, Q, 1], float32; no item is in both.

        Raises:
            InvalidInput: the split has no user.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def scores(self, outputs_Q: Tensor, y_Q: Tensor) -> dict[str, float]:
        """`loss`, and `nrmse` = √loss: in units of all training ratings, as one user's may well be all alike."""
        found = super().scores(outputs_Q, y_Q)
        return found | {"nrmse": math.sqrt(found["loss"])}

    def _one(self, ref: TaskRef) -> OneTask:
        world, config = self._world, self.config
        users = world.rows[ref.split]
        if not users:
            raise InvalidInput(
                f"no user is left for {ref.split}; raise {ref.split}_users",
                field=f"/task/{ref.split}_users",
                rule="at least one",
                value=0,
            )
        start, stop = users[pick_of_epoch(ref, len(users))]
        chance = generator("ratings", ref.split, ref.seed, ref.index)
        drawn = start + torch.randperm(stop - start, generator=chance)[: config.shots + config.queries]
        x_ND, y_N1, shots = world.features[world.item[drawn]], world.y[drawn], config.shots
        return OneTask(x_ND[:shots], y_N1[:shots], x_ND[shots:], y_N1[shots:])


@lru_cache(maxsize=4)
def _world(config: RatingsConfig, root: str) -> World:  # noqa: ARG001
    table = _read(config)
    order = np.argsort(table.user, kind="stable")
    user, item, rating = table.user[order], table.item[order], table.rating[order]
    stops = np.cumsum(np.bincount(user, minlength=len(table.users)))
    rows = list(zip([0, *stops[:-1].tolist()], stops.tolist(), strict=True))
    splits = _split(config, list(zip(table.users, rows, strict=True)))
    train = np.concatenate([np.arange(start, stop) for _, (start, stop) in splits["train"]])
    mean, std = rating[train].mean(), rating[train].std()
    if std == 0:
        raise InvalidInput("all ratings of the training users are equal", field="/task/data", rule="ratings that vary")
    y = (rating - mean) / std
    if config.features == "genres" and table.genres is not None:
        features = table.genres.astype(np.float64)
    else:
        features = item_factors(user[train], item[train], y[train], len(table.items), config.factors)
    return World(
        torch.from_numpy(features).float(),
        torch.from_numpy(item),
        torch.from_numpy(y).float().unsqueeze(-1),
        {split: [place for _, place in members] for split, members in splits.items()},
        {split: [name for name, _ in members] for split, members in splits.items()},
    )


def _read(config: RatingsConfig) -> Table:
    if config.data == "ml-100k":
        return read_movielens_100k()
    if config.data == "ml-1m":
        return read_movielens_1m()
    if config.data == "jester":
        return read_jester()
    if config.file is not None:
        return read_table(config.file, config.user_column, config.item_column, config.rating_column)
    return generated(config)


Member = tuple[str, tuple[int, int]]


def _split(config: RatingsConfig, users: Sequence[Member]) -> dict[Split, list[Member]]:
    needed = config.shots + config.queries
    usable = [(name, (start, stop)) for name, (start, stop) in users if stop - start >= needed]
    usable.sort(key=lambda member: derive("ratings", "split", config.split_seed, member[0]))
    test, held_out = config.test_users, config.test_users + config.validation_users
    if len(usable) <= held_out:
        raise InvalidInput(
            f"{len(usable)} of {len(users)} users have the {needed} ratings of shots + queries; test_users + "
            f"validation_users take {held_out}, and none is left for training",
            field="/task/test_users",
            rule=f"test_users + validation_users below {len(usable)}",
            value=held_out,
        )
    return {"test": usable[:test], "validation": usable[test:held_out], "train": usable[held_out:]}


def item_factors(
    user: NDArray[np.int64], item: NDArray[np.int64], rating: NDArray[np.float64], items: int, factors: int
) -> NDArray[np.float64]:
    """V_D S_D of R ≈ U_D S_D V_Dᵀ, R[user, item] = rating and 0 elsewhere; scaled, with signs fixed.

    By subspace iteration on RᵀR with `SPARE` directions too many, until the singular values stand still.

    Args:
        user: [N] whole numbers.
        item: [N] from 0 to items - 1.
        rating: [N] float64.
        items: I.
        factors: D.

    Returns:
        [I, D] float64; mean square 1 over the rows of rated items.

    Raises:
        InvalidInput: more factors than users or items.
    """
    seen, row = np.unique(user, return_inverse=True)
    limit = min(len(seen), items)
    if factors > limit:
        raise InvalidInput(
            f"factors must be at most {limit}: there are {len(seen)} training users and {items} items",
            field="/task/factors",
            rule=f"at most {limit}",
            value=factors,
        )
    by_user, by_item = _sparse(row, item, rating, len(seen)), _sparse(item, row, rating, items)
    width = min(factors + SPARE, limit)
    basis_IW = torch.randn(items, width, generator=generator("ratings", "factors"), dtype=torch.float64)
    S_D, before_D = torch.zeros(2, factors, dtype=torch.float64)
    for _ in range(ITERATIONS):
        image_UW = by_user(torch.linalg.qr(basis_IW)[0])
        basis_IW = by_item(image_UW)
        squares, turn = torch.linalg.eigh(image_UW.t() @ image_UW)
        S_D, before_D = squares[-factors:].flip(0).clamp_min(0).sqrt(), S_D
        if (S_D - before_D).abs().max() <= 1e-12 * S_D[0]:
            break
    # A singular vector of no weight has no direction: 0 / 0 counts as 0.
    V_ID = basis_IW @ turn[:, -factors:].flip(1) / S_D.masked_fill(S_D.le(1e-12 * S_D[0]), torch.inf)
    V_ID = V_ID * torch.where(V_ID.gather(0, V_ID.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    rated = np.unique(item)
    scaled: NDArray[np.float64] = (V_ID / V_ID[rated].square().mean().sqrt()).numpy()
    return scaled


def _sparse(
    row: NDArray[np.int64], column: NDArray[np.int64], value: NDArray[np.float64], rows: int
) -> Callable[[Tensor], Tensor]:
    """Multiplication from the left by the matrix that has `value` at (`row`, `column`)."""
    order = np.argsort(row, kind="stable")
    columns, values = torch.from_numpy(column[order]), torch.from_numpy(value[order])
    starts = torch.from_numpy(np.searchsorted(row[order], np.arange(rows)))
    # As a bag of embeddings: several times faster than torch's own sparse matrices.
    return lambda dense: embedding_bag(columns, dense, starts, mode="sum", per_sample_weights=values)


def generated(config: RatingsConfig) -> Table:
    """The low-rank world of `config`: all users rate `rated` items each."""
    chance = np.random.default_rng(derive("ratings", "world", config.world_seed))
    user_bias, item_bias = 0.5 * chance.standard_normal(config.users), 0.5 * chance.standard_normal(config.items)
    p_UR, q_IR = (
        chance.standard_normal((config.users, config.rank)),
        chance.standard_normal((config.items, config.rank)),
    )
    taste_UI = user_bias[:, None] + item_bias + p_UR @ q_IR.T / math.sqrt(config.rank)
    noise_UI = config.noise * chance.standard_normal((config.users, config.items))
    chosen_UI = np.argsort(chance.random((config.users, config.items)), axis=1)[:, : config.rated]
    user = np.repeat(np.arange(config.users), config.rated)
    item = np.sort(chosen_UI, axis=1).ravel()
    names = [str(u) for u in range(config.users)], [str(i) for i in range(config.items)]
    return Table(user, item, (taste_UI + noise_UI)[user, item], *names)
