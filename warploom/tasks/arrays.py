"""Tasks out of a file of the user's. Shape suffixes: T tasks, S support, Q query, N rows of the file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from warploom.errors import InvalidInput
from warploom.seeding import derive, generator
from warploom.tasks.base import TaskFamily
from warploom.tasks.columns import find, keys, numbers, read_columns, refuse
from warploom.tasks.configs.arrays import ArraysConfig
from warploom.tasks.data import OneTask, pick_of_epoch, stack
from warploom.types import Split, TaskRef, Tasks

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class OwnTask(NamedTuple):
    """One value of the task column.

    Args:
        name: that value, as text.
        groups: the rows of each class that can be drawn, or all rows as one group (regression).
    """

    name: str
    groups: tuple[Tensor, ...]


class Table(NamedTuple):
    """The file's content: x [N, *features] and y [N] class or [N, values], float32 or int64; tasks sorted by name."""

    x: Tensor
    y: Tensor
    tasks: dict[Split, list[OwnTask]]


class Arrays(TaskFamily[ArraysConfig]):
    """Bring your own data: each value of the task column is a task.

    Tasks go to train, validation and test by a hash of their names (so that a file may grow, and rows may change
    order), or as a column says. Rows for support and queries are drawn by the ref, without replacement.
    Classification: `ways` classes of the task are drawn, in the order that gives them their numbers.

    Args:
        config: see `ArraysConfig`; the file lies under the data folder (`$WARPLOOM_DATA`).

    Raises:
        DataMissing: no such file.
        WireError: the file is not what its name says.
        InvalidInput: a column, row or task is not as the config states; the message names it.
        SetupError: a Parquet file, and no pyarrow.

    Example:
        >>> Arrays(ArraysConfig(file="mine.npz", features=(3,))).size("train")  # doctest: +SKIP
        70

    Source: this project's own. An npz file is read without pickle.
    """

    def __init__(self, config: ArraysConfig) -> None:
        super().__init__(config)
        path = find(config.file)
        stat = path.stat()
        self._table = _load(path, (stat.st_size, stat.st_mtime_ns), config)

    def size(self, split: Split) -> int | None:
        """How many tasks `split` has."""
        return len(self._table.tasks[split])

    def identity(self, ref: TaskRef) -> int | None:
        """The number of the task."""
        count = len(self._table.tasks[ref.split])
        return pick_of_epoch(ref, count) if count else None

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name; each epoch of refs goes once through those of the split.

        Returns:
            Tasks with x [T, S, *features] and [T, Q, *features] float32; y of the same rows, int64 classes grouped by
            class, or values [.., values] float32.

        Raises:
            InvalidInput: the split has no task.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def _one(self, ref: TaskRef) -> OneTask:
        config, tasks = self.config, self._table.tasks[ref.split]
        if not tasks:
            raise InvalidInput(
                f"{config.file} leaves no task for {ref.split}; raise {ref.split}_share or add tasks",
                field=f"/task/{ref.split}_share",
                rule="at least one task",
                value=0,
            )
        chance = generator("arrays", ref.split, ref.seed, ref.index)
        groups = tasks[pick_of_epoch(ref, len(tasks))].groups
        if config.target == "class":
            groups = tuple(groups[i] for i in torch.randperm(len(groups), generator=chance)[: config.ways].tolist())
        drawn = [_draw(rows, config, chance) for rows in groups]
        support = torch.cat([rows[config.queries :] for rows in drawn])
        query = torch.cat([rows[: config.queries] for rows in drawn])
        x, y = self._table.x, self._table.y
        if config.target == "value":
            return OneTask(x[support], y[support], x[query], y[query])
        labels = [torch.arange(len(groups)).repeat_interleave(len(part) // len(groups)) for part in (support, query)]
        return OneTask(x[support], labels[0], x[query], labels[1])


def _draw(rows: Tensor, config: ArraysConfig, chance: Generator) -> Tensor:
    """Queries first, then the support."""
    needed = len(rows) if config.shots is None else config.queries + config.shots
    return rows[torch.randperm(len(rows), generator=chance)[:needed]]


@lru_cache(maxsize=4)
def _load(path: Path, stamp: tuple[int, int], config: ArraysConfig) -> Table:  # noqa: ARG001
    split = [config.split_column] if config.split_column else []
    columns = read_columns(path, [config.task_column, *config.x_columns, *config.y_columns, *split])
    x = _join(path, columns, config.x_columns, config.features, "features")
    if config.target == "class":
        name = config.y_columns[0]
        y: NDArray[Any] = np.unique(keys(path, name, columns[name]), return_inverse=True)[1]
    else:
        y = _join(path, columns, config.y_columns, (config.values,), "values")
    names, where = np.unique(keys(path, config.task_column, columns[config.task_column]), return_inverse=True)
    rows = np.split(np.argsort(where, kind="stable"), np.cumsum(np.bincount(where))[:-1])
    tasks = []
    for name, own in zip(names.tolist(), rows, strict=True):
        groups = _groups(config, own, y)
        problem = _problem(config, groups)
        if problem is None:
            tasks.append(OwnTask(str(name), tuple(torch.from_numpy(group) for group in groups)))
        elif config.short_tasks == "refuse":
            refuse(path, f"task {name!r} {problem}", column=config.task_column, row=int(own[0]) + 1, value=str(name))
    _equal_sizes(path, config, tasks)
    splits = _stated(path, config, columns, tasks) if config.split_column else _by_chance(config, tasks)
    if not splits["train"]:
        refuse(path, f"leaves no task for training; it has {len(tasks)} usable tasks of {len(names)}")
    if config.standardise:
        train = np.concatenate([group.numpy() for task in splits["train"] for group in task.groups])
        x = _standardised(x, train)
        y = _standardised(y, train) if config.target == "value" else y
    return Table(torch.from_numpy(x), torch.from_numpy(y), splits)


def _join(
    path: Path, columns: dict[str, NDArray[Any]], names: Sequence[str], shape: tuple[int, ...], field: str
) -> NDArray[np.float32]:
    """The columns side by side, as [N, *shape]."""
    parts = [numbers(path, name, columns[name]) for name in names]
    rows = len(parts[0])
    found = parts[0].shape[1:] if len(parts) == 1 else None
    # A shape of several dimensions has to be the stated one: an image must not be turned inside out unseen.
    if found is not None and len(found) > 1 and found not in (shape, shape[1:] if shape[0] == 1 else shape):
        refuse(path, f"has shape {list(found)} in each row, {field} is {list(shape)}", column=names[0])
    flat = [part.reshape(rows, -1) for part in parts]
    width = sum(part.shape[1] for part in flat)
    if width != prod(shape):
        what = f"gives {width} numbers in each row, {field} {list(shape)} asks for {prod(shape)}"
        refuse(path, what, column=", ".join(names), value=width)
    return np.concatenate(flat, axis=1).reshape(rows, *shape)


def _groups(config: ArraysConfig, rows: NDArray[np.int64], y: NDArray[Any]) -> list[NDArray[np.int64]]:
    """What rows are drawn from: those of each class with enough of them, or all."""
    if config.target == "value":
        return [rows]
    needed = config.queries + (config.shots or 1)
    groups = [rows[y[rows] == label] for label in np.unique(y[rows])]
    return [group for group in groups if len(group) >= needed]


def _problem(config: ArraysConfig, groups: Sequence[NDArray[np.int64]]) -> str | None:
    needed = config.queries + (config.shots or 1)
    if config.target == "class" and len(groups) < config.ways:
        return f"has {len(groups)} classes with at least {needed} rows (shots + queries); ways asks for {config.ways}"
    if config.target == "value" and len(groups[0]) < needed:
        return f"has {len(groups[0])} rows; shots + queries ask for {needed}"
    return None


def _equal_sizes(path: Path, config: ArraysConfig, tasks: Sequence[OwnTask]) -> None:
    """With all rows in use, tasks can be computed together only if they are equally large."""
    sizes = {len(group): task.name for task in tasks for group in task.groups}
    if config.shots is None and len(sizes) > 1:
        low, high = min(sizes), max(sizes)
        each = "of a class" if config.target == "class" else "rows"
        what = f"shots null needs equally many rows; task {sizes[low]!r} has {low} {each}, {sizes[high]!r} {high}"
        refuse(path, f"{what}; set shots", column=config.task_column)


def _by_chance(config: ArraysConfig, tasks: Sequence[OwnTask]) -> dict[Split, list[OwnTask]]:
    ordered = sorted(tasks, key=lambda task: derive("arrays", "split", config.split_seed, task.name))
    test = round(len(ordered) * config.test_share)
    validation = test + round(len(ordered) * config.validation_share)
    return {"test": ordered[:test], "validation": ordered[test:validation], "train": ordered[validation:]}


def _stated(
    path: Path, config: ArraysConfig, columns: dict[str, NDArray[Any]], tasks: Sequence[OwnTask]
) -> dict[Split, list[OwnTask]]:
    name = config.split_column or ""
    said = keys(path, name, columns[name])
    unknown = ~np.isin(said, SPLITS)
    if unknown.any():
        row = int(unknown.argmax())
        refuse(path, f"must be one of {', '.join(SPLITS)}", column=name, row=row + 1, value=str(said[row]))
    splits: dict[Split, list[OwnTask]] = {split: [] for split in SPLITS}
    owner = keys(path, config.task_column, columns[config.task_column]).astype(np.str_)
    for task in tasks:
        rows = np.flatnonzero(owner == task.name)
        other = rows[said[rows] != said[rows[0]]]
        if len(other):
            what = f"puts task {task.name!r} into {said[other[0]]} too, after {said[rows[0]]}"
            refuse(path, what, column=name, row=int(other[0]) + 1)
        splits[str(said[rows[0]])].append(task)  # type: ignore[index]
    return splits


def _standardised(values: NDArray[np.float32], train: NDArray[np.int64]) -> NDArray[np.float32]:
    """In units of the training rows; what does not vary there is only shifted."""
    mean, std = (moment(values[train], axis=0, dtype=np.float64) for moment in (np.mean, np.std))
    standardised: NDArray[np.float32] = ((values - mean) / np.where(std > 0, std, 1.0)).astype(np.float32)
    return standardised
