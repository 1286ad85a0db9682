"""Pictures in class folders. Shape suffixes: B batch, C classes, H height, W width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from torch import Generator, Tensor

from warploom.errors import DataMissing, InvalidInput
from warploom.seeding import derive, generator
from warploom.tasks.affine import augmented
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.image_folder import ImageFolderConfig
from warploom.tasks.data import OneTask, data_root, pick_of_epoch, stack
from warploom.tasks.pictures import PictureCache, decode, normalised
from warploom.types import Split, TaskRef, Tasks

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}


class PictureClass(NamedTuple):
    """A class, and its picture files in order of their names, as paths from the data set's folder."""

    name: str
    files: tuple[str, ...]


ClassesOfSplit = dict[Split, tuple[PictureClass, ...]]


class ImageFolder(TaskFamily[ImageFolderConfig]):
    """Tasks of any data set that lies in class folders.

    Layouts under `<data folder>/<folder>/`: `<class>/*.png|jpg` alone, where classes are dealt to the splits by
    `split_seed`; or `train/<class>/...`, `val/<class>/...`, `test/<class>/...`, taken as they are. Files and folders
    whose names begin with a dot or two underscores are left out, and so are folders without pictures.

    `few-shot`: a task is `ways` classes of a split, and shots + queries pictures of each, drawn by the ref.
    `multi-shot`: the classes of a split are dealt into fixed groups of `ways` (what is left over is not used); a task
    is one group, with fixed labels, always the same queries and the same support.

    Settings: miniImageNet, 5-way 1-shot, is the default once its 64, 16 and 20 classes of 600 pictures of 84 x 84 lie
    in `miniimagenet/train`, `val` and `test`; for 5 shots add `{"shots": 5}`. tieredImageNet with its 351, 97 and 160
    classes: `{"folder": "tieredimagenet"}`; in the manner of WarpGrad's multi-shot setting `{"protocol": "multi-shot",
    "ways": 10, "shots": 640, "queries": 50}`.

    Args:
        config: see `ImageFolderConfig`.

    Raises:
        DataMissing: the folder is not there, or has no classes.
        InvalidInput: a class has too few pictures, or lies in two splits.
        WireError: (from `sample`) a file is no picture.

    Example:
        >>> ImageFolder(ImageFolderConfig()).sample([TaskRef("train", 0, seed=1)]).support_x.shape  # doctest: +SKIP
        torch.Size([1, 5, 3, 84, 84])

    Source: Vinyals et al., NeurIPS 2016 (miniImageNet); Ravi and Larochelle, ICLR 2017 (its split); Ren et al., ICLR
    2018 (tieredImageNet); Flennerhag et al., ICLR 2020 (10-way 640-shot).
    Departures: the pictures that WarpGrad holds out of a group, and its groups, are not known; ours follow
    `split_seed`.
    """

    def __init__(self, config: ImageFolderConfig) -> None:
        super().__init__(config)
        self._root = data_root() / config.folder
        self._classes = _split(config, self._root)
        self._require_enough()
        files = [file for split in self._classes.values() for member in split for file in member.files]
        self._number = {file: number for number, file in enumerate(files)}
        self._cache = PictureCache(
            lambda number: decode(self._root / files[number], config.input_shape, config.fit),
            len(files),
            config.input_shape,
            config.cache_bytes,
        )
        self._groups = {split: _groups(config, split, self._classes[split]) for split in SPLIT_FOLDERS}

    def size(self, split: Split) -> int | None:
        """How many groups `split` has (multi-shot); None for few-shot."""
        return len(self._groups[split]) if self.config.protocol == "multi-shot" else None

    def identity(self, ref: TaskRef) -> int | None:
        """The number of the group in its split (multi-shot); None for few-shot."""
        count = self.size(ref.split)
        return pick_of_epoch(ref, count) if count else None

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Args:
            refs: their names; in multi-shot, each run of `size(split)` indices goes once through the groups.

        Returns:
            Tasks with support [T, ways * shots, C, H, W] and query [T, ways * queries, C, H, W], grouped by class;
            labels int64.

        Raises:
            InvalidInput: the split of a ref has fewer than `ways` classes.
            WireError: a file is no picture; the message names it.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def augment(self, x_B: Tensor, generator: Generator) -> Tensor:
        """The batch [B, C, H, W] under fresh affine maps; as it is when `augment` is off."""
        return augmented(self.config, x_B, generator)

    def _one(self, ref: TaskRef) -> OneTask:
        config, classes = self.config, self._classes[ref.split]
        if len(classes) < config.ways:
            rule = f"at most {len(classes)}, the {ref.split} classes under {self._root}"
            _refuse("ways", f"ways breaks the rule: {rule}; got {config.ways}", rule, config.ways)
        chance = generator("image-folder", ref.split, ref.seed, ref.index)
        drawn = self._of_group(ref) if config.protocol == "multi-shot" else self._few(classes, chance)
        query_x = self._pictures([file for files in drawn for file in files[: config.queries]])
        if config.augment_query:
            query_x = self.augment(query_x, chance)
        labels_C = torch.arange(config.ways)
        return OneTask(
            self._pictures([file for files in drawn for file in files[config.queries :]]),
            labels_C.repeat_interleave(config.shots),
            query_x,
            labels_C.repeat_interleave(config.queries),
        )

    def _few(self, classes: Sequence[PictureClass], chance: Generator) -> list[list[str]]:
        """Files of N classes, queries first, both drawn by chance."""
        chosen = torch.randperm(len(classes), generator=chance)[: self.config.ways].tolist()
        return [self._drawn(classes[c], chance) for c in chosen]

    def _of_group(self, ref: TaskRef) -> list[list[str]]:
        """Files of the classes of a group, queries first, the same at each visit."""
        group = self._groups[ref.split][self.identity(ref) or 0]
        seed = self.config.split_seed
        return [self._drawn(member, generator("image-folder", "held out", seed, member.name)) for member in group]

    def _drawn(self, member: PictureClass, chance: Generator) -> list[str]:
        needed = self.config.shots + self.config.queries
        return [member.files[i] for i in torch.randperm(len(member.files), generator=chance)[:needed].tolist()]

    def _pictures(self, files: Sequence[str]) -> Tensor:
        return normalised(self.config, self._cache.take([self._number[file] for file in files]))

    def _require_enough(self) -> None:
        config = self.config
        needed = config.shots + config.queries
        poor = [c for split in self._classes.values() for c in split if len(c.files) < needed]
        if poor:
            worst = min(poor, key=lambda c: len(c.files))
            rule = f"at least shots + queries = {needed} pictures in each class"
            message = (
                f"class {worst.name!r} under {self._root} has {len(worst.files)} pictures; the rule is {rule} "
                f"({len(poor)} of the classes break it)"
            )
            _refuse("shots", message, rule, len(worst.files))


def _refuse(field: str, message: str, rule: str, value: int | str) -> NoReturn:
    raise InvalidInput(message, field=f"/task/{field}", rule=rule, value=value)


def _split(config: ImageFolderConfig, root: Path) -> ClassesOfSplit:
    """The classes of each split, sorted by name."""
    if not root.is_dir():
        raise DataMissing(
            f"{root} is not there: put the pictures into it as <class>/*.png|jpg, or as train/<class>/*.png|jpg with "
            "val and test beside train; WARPLOOM_DATA names the folder above it",
            field="/task/folder",
            rule="a folder under the data folder",
            value=config.folder,
        )
    by_folders = config.splits == "folders" or (config.splits == "auto" and any(_folders(root / "train")))
    found = _as_they_lie(root) if by_folders else _dealt(config, root)
    if not found["train"]:
        where = "train/<class>/*.png|jpg" if by_folders else "<class>/*.png|jpg"
        rule = f"holds {where} with at least one class" + ("" if by_folders else " for training")
        raise DataMissing(
            f"{root} has no classes to train with; the rule is that it {rule}", field="/task/folder", rule=rule, value=0
        )
    return found


def _as_they_lie(root: Path) -> ClassesOfSplit:
    found: ClassesOfSplit = {}
    where: dict[str, str] = {}
    for split, names in SPLIT_FOLDERS.items():
        folder = next((name for name in names if (root / name).is_dir()), names[0])
        found[split] = tuple(_classes(root, [folder]))
        for name in (member.name for member in found[split]):
            if name in where:
                rule = "no class lies in two splits"
                message = (
                    f"class {name!r} lies in {where[name]} and in {folder} under {root}; the rule is that {rule}. To "
                    "deal all classes to the splits anew, set splits to 'seed'"
                )
                _refuse("splits", message, rule, name)
            where[name] = folder
    return found


def _dealt(config: ImageFolderConfig, root: Path) -> ClassesOfSplit:
    """All classes, dealt by chance; those that lie in train, val and test folders are joined by name."""
    names = [name for names in SPLIT_FOLDERS.values() for name in names]
    members = list(_classes(root, names if any(_folders(root / "train")) else ["."]))
    members.sort(key=lambda member: derive("image-folder", "classes", config.split_seed, member.name))
    first = round(config.test_share * len(members))
    second = first + round(config.validation_share * len(members))
    by_name = {"test": members[:first], "validation": members[first:second], "train": members[second:]}
    return {split: tuple(sorted(by_name[split])) for split in SPLIT_FOLDERS}


def _classes(root: Path, parts: Sequence[str]) -> Iterator[PictureClass]:
    """The classes that lie in these sub-folders, sorted by name, with all their pictures."""
    files: dict[str, list[str]] = {}
    for part in parts:
        for folder in _folders(root / part):
            pictures = [path.relative_to(root).as_posix() for path in _pictures(folder)]
            if pictures:
                files.setdefault(folder.name, []).extend(pictures)
    for name in sorted(files):
        yield PictureClass(name, tuple(files[name]))


def _folders(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(each for each in path.iterdir() if not _hidden(each) and each.is_dir())


def _pictures(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if not _hidden(each) and each.suffix.lower() in SUFFIXES)


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "__"))


def _groups(config: ImageFolderConfig, split: Split, members: Sequence[PictureClass]) -> list[Sequence[PictureClass]]:
    """Fixed groups of N classes."""
    ways = config.ways
    dealt = sorted(members, key=lambda c: derive("image-folder", "groups", config.split_seed, split, c.name))
    return [dealt[start : start + ways] for start in range(0, len(dealt) - ways + 1, ways)]
