"""Omniglot, read from the official archives. Shape suffixes: C classes, D drawings, H height, W width, M images."""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from warploom.errors import DataMissing, InvalidInput, WireError
from warploom.seeding import derive, generator
from warploom.tasks.affine import augmented
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.omniglot import OmniglotConfig
from warploom.tasks.data import ARCHIVES, OneTask, cache_root, data_root, pick_of_epoch, stack
from warploom.types import Split, TaskRef, Tasks

CACHE_FORMAT = 1
_MEMBER = re.compile(r"^images_(?:background|evaluation)/([^/]+)/(character\d+)/(\d+_\d+)\.png$")
Arrays = tuple[NDArray[np.uint8], NDArray[np.str_]]  # images [M, H, W], and (alphabet, character) of each
_FETCH = "delete it and run `warploom data fetch omniglot`"


class Character(NamedTuple):
    """Rows `start` to `start + drawings` of the image tensor, in the order of the drawings' file names."""

    alphabet: str
    start: int
    drawings: int


class Drawings(NamedTuple):
    """All images [M, H, W] uint8 with ink 255, and the characters sorted by alphabet and name."""

    images: Tensor
    characters: tuple[Character, ...]


class Omniglot(TaskFamily[OmniglotConfig]):
    """Handwritten characters of 50 alphabets.

    `multi-shot`: a task is one alphabet; `ways` of its characters and the order of the classes are drawn by the ref.
    The first `queries` drawings of a character are the query, the next `shots` the support. Alphabets go where
    `split_seed` says: `test_alphabets` are test, `train_alphabets` train, the rest validation; growing
    `train_alphabets` keeps the test alphabets and the train alphabets there were.

    `few-shot`: a task is `ways` classes from anywhere in the split, a class being a character turned by 0, 90, 180 or
    270 degrees; drawings are drawn by the ref. Of 1623 characters 1200 are for training, as in the MAML paper, 100
    of those held back for validation; 423 are test. Smaller archives are cut in the same proportion.

    Args:
        config: see `OmniglotConfig`.

    Raises:
        DataMissing: an archive is not under `$WARPLOOM_DATA/omniglot/`; the message says what to do.
        WireError: an archive is corrupt or of another layout.
        InvalidInput: fewer alphabets with enough characters than the split asks for.

    Example:
        >>> Omniglot(OmniglotConfig()).sample([TaskRef("train", 0, seed=1)]).support_x.shape  # doctest: +SKIP
        torch.Size([1, 300, 1, 28, 28])

    Source: Lake, Salakhutdinov, Tenenbaum, Science 2015; multi-shot protocol of Leap (Flennerhag et al., ICLR 2019)
    and WarpGrad (Flennerhag et al., ICLR 2020): 28 x 28 Lanczos, alphabets of at least 20 characters, 5 drawings held
    out, the same affine maps at training and at evaluation.
    Departures: characters are drawn per ref, not once per run; quarter-turned classes of one character may meet in a
    few-shot task.
    """

    def __init__(self, config: OmniglotConfig) -> None:
        super().__init__(config)
        drawings = load_drawings(config.image_size)
        self._images = drawings.images
        usable = [c for c in drawings.characters if c.drawings >= config.shots + config.queries]
        self._alphabets = _split_alphabets(config, usable) if config.protocol == "multi-shot" else {}
        self._characters = _split_characters(config, usable)

    def size(self, split: Split) -> int | None:
        """How many alphabets `split` has (multi-shot); None for few-shot."""
        return len(self._alphabets[split]) if self.config.protocol == "multi-shot" else None

    def identity(self, ref: TaskRef) -> int | None:
        """The number of the alphabet in its split (multi-shot); None for few-shot."""
        count = self.size(ref.split)
        return pick_of_epoch(ref, count) if count else None

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Args:
            refs: their names; in multi-shot, each run of `size(split)` indices goes once through the alphabets.

        Returns:
            Tasks with support [T, ways * shots, 1, H, W] and query [T, ways * queries, 1, H, W] in [0, 1], grouped by
            class; labels int64.

        Raises:
            InvalidInput: the split of a ref cannot give such a task.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def augment(self, x_B: Tensor, generator: Generator) -> Tensor:
        """The batch [B, 1, H, W] under fresh affine maps; as it is when `augment` is off."""
        return augmented(self.config, x_B, generator)

    def _one(self, ref: TaskRef) -> OneTask:
        chance = generator("omniglot", ref.split, ref.seed, ref.index)
        few = self.config.protocol == "few-shot"
        x_CD1HW = self._turned_characters(ref, chance) if few else self._characters_of_alphabet(ref, chance)
        queries = self.config.queries
        query_x = x_CD1HW[:, :queries].flatten(0, 1)
        if self.config.augment_query:
            query_x = self.augment(query_x, chance)
        labels_C = torch.arange(self.config.ways)
        return OneTask(
            x_CD1HW[:, queries:].flatten(0, 1),
            labels_C.repeat_interleave(self.config.shots),
            query_x,
            labels_C.repeat_interleave(queries),
        )

    def _characters_of_alphabet(self, ref: TaskRef, chance: Generator) -> Tensor:
        alphabets = self._alphabets[ref.split]
        if not alphabets:
            _refuse("train_alphabets", "leaves alphabets for validation", self.config.train_alphabets)
        characters = alphabets[self.identity(ref) or 0]
        chosen = torch.randperm(len(characters), generator=chance)[: self.config.ways].tolist()
        needed = torch.arange(self.config.queries + self.config.shots)
        rows_CD = torch.stack([characters[i].start + needed for i in chosen])
        return self._images[rows_CD].unsqueeze(2) / 255.0

    def _turned_characters(self, ref: TaskRef, chance: Generator) -> Tensor:
        characters, ways = self._characters[ref.split], self.config.ways
        if 4 * len(characters) < ways:
            _refuse("ways", f"at most 4 x {len(characters)} characters of {ref.split}", ways)
        chosen = torch.randperm(4 * len(characters), generator=chance)[:ways].tolist()
        needed = self.config.queries + self.config.shots
        classes = []
        for choice in chosen:
            which, turns = divmod(choice, 4)
            _, start, drawings = characters[which]
            rows_D = start + torch.randperm(drawings, generator=chance)[:needed]
            classes.append(torch.rot90(self._images[rows_D], turns, (1, 2)))
        return torch.stack(classes).unsqueeze(2) / 255.0


def _refuse(field: str, rule: str, value: int) -> None:
    raise InvalidInput(f"{field} breaks the rule: {rule}; got {value}", field=f"/task/{field}", rule=rule, value=value)


Alphabet = tuple[Character, ...]


def _split_alphabets(config: OmniglotConfig, usable: Sequence[Character]) -> dict[Split, tuple[Alphabet, ...]]:
    by_name: dict[str, list[Character]] = {}
    for character in usable:
        by_name.setdefault(character.alphabet, []).append(character)
    names = [name for name, members in by_name.items() if len(members) >= config.ways]
    names.sort(key=lambda name: derive("omniglot", "alphabets", config.split_seed, name))
    test, train = config.test_alphabets, config.train_alphabets
    if test + train > len(names):
        rule = f"train_alphabets + test_alphabets at most {len(names)}, the alphabets with {config.ways} characters"
        _refuse("train_alphabets", rule, train)
    ordered = [tuple(by_name[name]) for name in names]
    return {
        "test": tuple(ordered[:test]),
        "train": tuple(ordered[test : test + train]),
        "validation": tuple(ordered[test + train :]),
    }


def _split_characters(config: OmniglotConfig, usable: Sequence[Character]) -> dict[Split, Alphabet]:
    ordered = sorted(usable, key=lambda c: derive("omniglot", "characters", config.split_seed, c.alphabet, c.start))
    first = round(len(ordered) * 423 / 1623)
    second = first + round(len(ordered) * 100 / 1623)
    return {
        "test": tuple(ordered[:first]),
        "validation": tuple(ordered[first:second]),
        "train": tuple(ordered[second:]),
    }


def load_drawings(image_size: int, root: Path | None = None) -> Drawings:
    """All drawings at `image_size` pixels: from memory, else from the cache on disk, else from the archives.

    Args:
        image_size: height and width in pixels.
        root: the data folder; `data_root()` when None. Archives are looked for in `<root>/omniglot/`.

    Raises:
        DataMissing: an archive is not there.
        WireError: an archive is corrupt or of another layout.
    """
    folder = (data_root() if root is None else root) / "omniglot"
    paths = [folder / archive.name for archive in ARCHIVES["omniglot"]]
    _require(paths)
    stamps = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    return _load(stamps, image_size, cache_root())


def _require(paths: Sequence[Path]) -> None:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        urls = ", ".join(archive.url for archive in ARCHIVES["omniglot"])
        raise DataMissing(
            f"Omniglot is not here: {', '.join(missing)} missing. Run `warploom data fetch omniglot`, or put the "
            f"official archives (https://github.com/brendenlake/omniglot: {urls}) into {paths[0].parent}; "
            "WARPLOOM_DATA names the folder above it",
            field="WARPLOOM_DATA",
            rule="holds omniglot/images_background.zip and omniglot/images_evaluation.zip",
            value=str(paths[0].parent.parent),
        )


@lru_cache(maxsize=4)
def _load(stamps: tuple[tuple[str, int, int], ...], image_size: int, cache: Path) -> Drawings:
    key = hashlib.sha256(repr((CACHE_FORMAT, image_size, stamps)).encode()).hexdigest()[:16]
    kept = cache / f"omniglot-{image_size}-{key}.npz"
    found = _kept(kept)
    if found is not None:
        return _drawings(*found)
    images, names = _read_archives([Path(path) for path, _, _ in stamps], image_size)
    with suppress(OSError):
        _keep(kept, images, names)
    return _drawings(images, names)


def _kept(path: Path) -> Arrays | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["images"], arrays["names"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(target: Path, images: NDArray[np.uint8], names: NDArray[np.str_]) -> None:
    """Write by a temporary name, so that no reader meets half a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as part:
        try:
            np.savez(part, images=images, names=names)
            part.close()
            Path(part.name).replace(target)
        finally:
            Path(part.name).unlink(missing_ok=True)


def _drawings(images: NDArray[np.uint8], names: NDArray[np.str_]) -> Drawings:
    """Group images, sorted by name, into characters; a name is (alphabet, character)."""
    new = np.ones(len(names), dtype=bool)
    new[1:] = (names[1:] != names[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(names)))
    characters = tuple(
        Character(str(names[start, 0]), int(start), int(count)) for start, count in zip(starts, counts, strict=True)
    )
    return Drawings(torch.from_numpy(images), characters)


def _read_archives(paths: Sequence[Path], size: int) -> Arrays:
    found: list[tuple[tuple[str, ...], NDArray[Any]]] = []
    for path in paths:
        try:
            members = list(_members(path))
        except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
            raise WireError(f"{path} cannot be read ({error}); {_FETCH}", field=str(path)) from error
        if not members:
            rule = "holds images_<part>/<alphabet>/character<NN>/<id>_<drawer>.png"
            raise WireError(f"{path} has no drawings of the official layout; {_FETCH}", field=str(path), rule=rule)
        found += members
    found.sort(key=lambda member: member[0])
    if len({pixels.shape for _, pixels in found}) != 1:
        raise WireError(f"the drawings under {paths[0].parent} differ in size; {_FETCH}", rule="105 x 105 pixels")
    names = np.array([name[:2] for name, _ in found])
    return shrink(np.stack([pixels for _, pixels in found]), size), names


def _members(path: Path) -> Iterator[tuple[tuple[str, ...], NDArray[Any]]]:
    """((alphabet, character, drawing), ink as booleans) of each drawing of an archive."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            match = _MEMBER.match(name)
            if match is not None:
                yield match.groups(), _ink(archive.read(name))


def _ink(png: bytes) -> NDArray[np.bool_]:
    """Where a drawing has ink (black)."""
    plain = _plain_ink(png)
    if plain is not None:
        return plain
    with Image.open(io.BytesIO(png)) as picture:
        return ~np.asarray(picture.convert("1"))


def _plain_ink(png: bytes) -> NDArray[np.bool_] | None:
    """`_ink` of a 1-bit, unfiltered, one-chunk PNG, which the official drawings are; None for any other.

    Half of the time of reading 32,460 drawings would go into opening pictures in general.
    """
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    at = png.find(b"IDAT", 33)
    length = int.from_bytes(png[at - 4 : at], "big")
    if png[12:16] != b"IHDR" or png[24:29] != b"\x01\0\0\0\0" or png.count(b"IDAT") != 1:
        return None
    rows = np.frombuffer(zlib.decompress(png[at + 4 : at + 4 + length]), dtype=np.uint8)
    stride = 1 + (width + 7) // 8
    if rows.size != height * stride or rows[::stride].any():
        return None
    bits = np.unpackbits(rows.reshape(height, stride)[:, 1:], axis=1, count=width)
    return np.equal(bits, 0)


def shrink(ink_MHW: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """Resize square drawings by Lanczos, as pillow does with each, but for many at a time.

    Args:
        ink_MHW: [M, side, side] bool, ink True.
        size: the new side in pixels.

    Returns:
        [M, size, size] uint8, ink 255.
    """
    eye = Image.fromarray(np.eye(ink_MHW.shape[-1], dtype=np.float32))
    weights = 255.0 * torch.from_numpy(np.array(eye.resize((size, ink_MHW.shape[-1]), Image.Resampling.LANCZOS)))
    parts = []
    for start in range(0, len(ink_MHW), 128):
        paper = torch.from_numpy(~ink_MHW[start : start + 128]).float()
        across = (paper @ weights).round_().clamp_(0, 255)
        down = (across.mT.contiguous() @ weights).div_(255.0).round_().clamp_(0, 255)
        parts.append((255.0 - down.mT).to(torch.uint8))
    return torch.cat(parts).numpy()
