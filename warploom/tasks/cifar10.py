"""CIFAR-10, read from the official binary files. Shape suffixes: B batch, N images, S support, Q query."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Generator, Tensor

from warploom.errors import DataMissing, InvalidInput, WireError
from warploom.seeding import derive, generator
from warploom.tasks.affine import augmented
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.cifar10 import CLASSES, SIDE, Cifar10Config
from warploom.tasks.data import ARCHIVES, OneTask, data_root, stack
from warploom.tasks.pictures import normalised
from warploom.types import Split, TaskRef, Tasks

TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
FILES = (*TRAIN_FILES, "test_batch.bin")
UNPACKED = "cifar-10-batches-bin"
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
RECORD = 1 + 3 * SIDE * SIDE  # a label, then the red, the green and the blue plane, row by row
_FETCH = "delete it and run `warploom data fetch cifar10`"


class Photographs(NamedTuple):
    """All images [N, 3, 32, 32] uint8 and labels [N] int64; the first `train` of them are the training set."""

    images: Tensor
    labels: Tensor
    train: int


class Cifar10(TaskFamily[Cifar10Config]):
    """Photographs of ten classes.

    `few-shot`: a task is `ways` classes of a split and shots + queries images of each, drawn by the ref from the
    training and the test set together. Of the ten classes `train_classes` are for training, `validation_classes` for
    validation, the rest for test, as `split_seed` says: with three classes for test there are three 2-way problems.

    `rates`: the training set as one stream, for what is learned about the inner loop itself. Of its images a share
    `held_out` is for the meta-loss of training tasks and a share `validation_share` for validation; all others are
    the stream. The support of a task is the next 10 · shots images of a shuffled epoch, which ends when fewer are
    left; its queries are 10 · queries images drawn from the held-out ones (train), those for validation, or the
    official test set (test).

    Args:
        config: see `Cifar10Config`.

    Raises:
        DataMissing: the files are not under `$WARPLOOM_DATA/cifar10/`; the message says what to do.
        WireError: a file is cut or corrupt.
        InvalidInput: the files hold too few images for such tasks.

    Example:
        >>> Cifar10(Cifar10Config()).sample([TaskRef("train", 0, seed=1)]).support_x.shape  # doctest: +SKIP
        torch.Size([1, 10, 3, 32, 32])

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; Grefenstette et al., 2019,
    arXiv:1910.01727, section 5.1 (`rates`: 99 parts of the training set to learn from, 1 part for the meta-loss).
    Departures: another part is kept for validation, unless `validation_share` is 0. The few-shot split is ours.
    """

    def __init__(self, config: Cifar10Config) -> None:
        super().__init__(config)
        self._data = load_photographs()
        self._classes = _split_classes(config)
        self._rows = _split_rows(config, self._data)
        if config.protocol == "rates":
            self._require_stream()
        else:
            self._require_enough()

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Args:
            refs: their names; in `rates`, the index is the place in the stream of the ref's split and seed.

        Returns:
            Tasks with support [T, outputs * shots, 3, 32, 32] and query [T, outputs * queries, 3, 32, 32]; labels
            int64, grouped by class in few-shot, as they come in `rates`.

        Raises:
            InvalidInput: the split of a ref has too few classes or images.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def augment(self, x_B: Tensor, generator: Generator) -> Tensor:
        """The batch [B, 3, 32, 32] under fresh affine maps; as it is when `augment` is off."""
        return augmented(self.config, x_B, generator)

    def _one(self, ref: TaskRef) -> OneTask:
        chance = generator("cifar10", ref.split, ref.seed, ref.index)
        if self.config.protocol == "rates":
            rows_S, rows_Q = self._of_stream(ref, chance)
            support_y, query_y = self._data.labels[rows_S], self._data.labels[rows_Q]
        else:
            rows_S, rows_Q = self._of_classes(ref, chance)
            labels = torch.arange(self.config.ways)
            support_y = labels.repeat_interleave(self.config.shots)
            query_y = labels.repeat_interleave(self.config.queries)
        query_x = self._pictures(rows_Q)
        if self.config.augment_query:
            query_x = self.augment(query_x, chance)
        return OneTask(self._pictures(rows_S), support_y, query_x, query_y)

    def _pictures(self, rows_N: Tensor) -> Tensor:
        return normalised(self.config, self._data.images[rows_N])

    # few-shot

    def _of_classes(self, ref: TaskRef, chance: Generator) -> tuple[Tensor, Tensor]:
        classes, ways = self._classes[ref.split], self.config.ways
        if len(classes) < ways:
            _refuse("ways", f"at most {len(classes)}, the classes for {ref.split}", ways)
        queries, needed = self.config.queries, self.config.queries + self.config.shots
        drawn = []
        for c in torch.randperm(len(classes), generator=chance)[:ways].tolist():
            rows = (self._data.labels == classes[c]).nonzero()[:, 0]
            drawn.append(rows[torch.randperm(len(rows), generator=chance)[:needed]])
        return torch.cat([rows[queries:] for rows in drawn]), torch.cat([rows[:queries] for rows in drawn])

    def _require_enough(self) -> None:
        needed = self.config.shots + self.config.queries
        counts = torch.bincount(self._data.labels, minlength=len(CLASSES)).tolist()
        least = min(range(len(CLASSES)), key=counts.__getitem__)
        if counts[least] < needed:
            _refuse("shots", f"shots + queries at most {counts[least]}, the images of class {CLASSES[least]!r}", needed)

    # rates

    def _of_stream(self, ref: TaskRef, chance: Generator) -> tuple[Tensor, Tensor]:
        size, pool, judges = self._support, self._rows["stream"], self._rows[ref.split]
        needed = len(CLASSES) * self.config.queries
        if len(judges) < needed:
            share = {"train": "held_out", "validation": "validation_share", "test": "queries"}[ref.split]
            rule = f"10 queries at most {len(judges)}, the images that {ref.split} queries are drawn from"
            _refuse(share, rule, needed)
        epoch, place = divmod(ref.index, len(pool) // size)
        order = _epoch_order(len(pool), ref.split, ref.seed, epoch)
        chosen = torch.randperm(len(judges), generator=chance)[:needed]
        return pool[order[place * size : (place + 1) * size]], judges[chosen]

    @property
    def _support(self) -> int:
        return len(CLASSES) * self.config.shots

    def _require_stream(self) -> None:
        left = len(self._rows["stream"])
        if left < self._support:
            _refuse("shots", f"10 shots at most {left}, the images of the stream", self._support)


@lru_cache(maxsize=8)
def _epoch_order(count: int, split: str, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator("cifar10", "stream", split, seed, epoch))


def _refuse(field: str, rule: str, value: int) -> NoReturn:
    raise InvalidInput(f"{field} breaks the rule: {rule}; got {value}", field=f"/task/{field}", rule=rule, value=value)


def _split_classes(config: Cifar10Config) -> dict[Split, list[int]]:
    order = sorted(range(len(CLASSES)), key=lambda c: derive("cifar10", "classes", config.split_seed, CLASSES[c]))
    first, second = config.train_classes, config.train_classes + config.validation_classes
    return {"train": order[:first], "validation": order[first:second], "test": order[second:]}


def _split_rows(config: Cifar10Config, data: Photographs) -> dict[str, Tensor]:
    """`rates`: rows of the stream, and of the queries of each split."""
    order = torch.randperm(data.train, generator=generator("cifar10", "images", config.split_seed))
    first = round(config.held_out * data.train)
    second = first + round(config.validation_share * data.train)
    test = torch.arange(data.train, len(data.images))
    return {"train": order[:first], "validation": order[first:second], "stream": order[second:], "test": test}


def load_photographs(root: Path | None = None) -> Photographs:
    """All images: from memory, else from the unpacked files, else from the archive.

    Args:
        root: the data folder; `data_root()` when None. In `<root>/cifar10/` are looked for: the .bin files in
            `cifar-10-batches-bin/`, the .bin files, `cifar-10-binary.tar.gz`.

    Raises:
        DataMissing: none of them is there.
        WireError: a file is cut or corrupt.
    """
    folder = (data_root() if root is None else root) / "cifar10"
    archive = ARCHIVES["cifar10"][0]
    unpacked = [[place / name for name in FILES] for place in (folder / UNPACKED, folder)]
    for paths in (*unpacked, [folder / archive.name]):
        if all(path.is_file() for path in paths):
            return _load(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths))
    there = [path.name for path in (*unpacked[0], *unpacked[1]) if path.is_file()]
    lacking = [name for name in FILES if name not in there]
    raise DataMissing(
        f"CIFAR-10 is not here: {', '.join(lacking)} missing in {unpacked[0][0].parent}. Run `warploom data fetch "
        f"cifar10`, or put {archive.name} (MD5 {archive.md5}), as {PAGE} offers it, or what is in it into {folder}; "
        "WARPLOOM_DATA names the folder above it",
        field="WARPLOOM_DATA",
        rule=f"holds cifar10/{archive.name} or the files of it",
        value=str(folder.parent),
    )


@lru_cache(maxsize=2)
def _load(stamps: tuple[tuple[str, int, int], ...]) -> Photographs:
    paths = [Path(path) for path, _, _ in stamps]
    unpacked = len(paths) > 1
    parts = {path.name: (str(path), path.read_bytes()) for path in paths} if unpacked else _in_archive(paths[0])
    records = [_records(*parts[name]) for name in FILES]
    rows = np.concatenate(records)
    images = torch.from_numpy(rows[:, 1:].reshape(-1, 3, SIDE, SIDE).copy())
    return Photographs(images, torch.from_numpy(rows[:, 0].astype(np.int64)), len(rows) - len(records[-1]))


def _in_archive(path: Path) -> dict[str, tuple[str, bytes]]:
    """Where each file of the archive is, in words, and its bytes; nothing is written."""
    found: dict[str, tuple[str, bytes]] = {}
    try:
        with gzip.open(path) as packed:
            with tarfile.open(fileobj=packed, mode="r:") as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    body = archive.extractfile(member) if name in FILES else None
                    if body is not None:
                        found[name] = (f"{name} in {path}", body.read())
            while packed.read(1 << 20):  # the checksum is at the end
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise WireError(f"{path} cannot be read ({error}); {_FETCH}", field=str(path)) from error
    lacking = [name for name in FILES if name not in found]
    if lacking:
        rule = f"holds {', '.join(FILES)}"
        raise WireError(f"{path} lacks {', '.join(lacking)}; {_FETCH}", field=str(path), rule=rule, value=lacking[0])
    return found


def _records(where: str, body: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """[N, 3073]: a label and the pixels of each image."""
    if not body or len(body) % RECORD:
        rule = f"a multiple of {RECORD} bytes"
        raise WireError(f"{where} has {len(body)} bytes, not {rule}; {_FETCH}", field=where, rule=rule, value=len(body))
    rows = np.frombuffer(body, dtype=np.uint8).reshape(-1, RECORD)
    if rows[:, 0].max() >= len(CLASSES):
        rule = f"labels from 0 to {len(CLASSES) - 1}"
        most = int(rows[:, 0].max())
        raise WireError(f"{where} has label {most}, not {rule}; {_FETCH}", field=where, rule=rule, value=most)
    return rows
