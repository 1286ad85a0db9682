"""What task families share: where data sets lie, how they are fetched, and the order in which tasks come."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from warploom.errors import InvalidInput, NotFound, Unavailable, WireError
from warploom.seeding import derive

if TYPE_CHECKING:
    import httpx
    from torch import Tensor

    from warploom.types import TaskRef, Tasks

Progress = Callable[[str, int, int | None], None]


class Archive(NamedTuple):
    """One file of a data set: its name on disk, its official address, its published MD5."""

    name: str
    url: str
    md5: str


_MOVIELENS = "https://files.grouplens.org/datasets/movielens"
_OMNIGLOT = "https://github.com/brendenlake/omniglot/raw/master/python"

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "omniglot": (
        Archive("images_background.zip", f"{_OMNIGLOT}/images_background.zip", "68d2efa1b9178cc56df9314c21c6e718"),
        Archive("images_evaluation.zip", f"{_OMNIGLOT}/images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811"),
    ),
    "ml-100k": (Archive("ml-100k.zip", f"{_MOVIELENS}/ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"),),
    "ml-1m": (Archive("ml-1m.zip", f"{_MOVIELENS}/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"),),
    "cifar10": (
        Archive(
            "cifar-10-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
}


class OneTask(NamedTuple):
    """One task before stacking: the fields of `Tasks` without their first dimension."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


def stack(refs: Sequence[TaskRef], tasks: Sequence[OneTask]) -> Tasks:
    """The tasks as one batch, in the order given.

    Raises:
        InvalidInput: there are none.
    """
    import torch

    from warploom.types import Tasks

    if not tasks:
        raise InvalidInput("no task to sample", field="refs", rule="at least one", value=[])
    return Tasks(tuple(refs), *(torch.stack(list(column)) for column in zip(*tasks, strict=True)))


def pick_of_epoch(ref: TaskRef, count: int) -> int:
    """Which of `count` things `ref` stands for, so that any `count` refs of one epoch are all of them.

    Args:
        ref: epoch = index // count; the order of an epoch depends on the ref's split, seed and epoch.
        count: how many there are, at least 1.

    Returns:
        A number in [0, count).

    Example:
        >>> from warploom.types import TaskRef
        >>> sorted(pick_of_epoch(TaskRef("train", i, seed=3), 4) for i in range(4, 8))
        [0, 1, 2, 3]
    """
    epoch, place = divmod(ref.index, count)
    return _order(count, ref.split, ref.seed, epoch)[place]


@lru_cache(maxsize=64)
def _order(count: int, split: str, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(sorted(range(count), key=lambda item: derive("epoch", split, seed, epoch, item)))


def data_root() -> Path:
    """Where data sets lie: `$WARPLOOM_DATA`, or `~/.cache/warploom/data`."""
    return Path(os.environ.get("WARPLOOM_DATA") or "~/.cache/warploom/data").expanduser()


def cache_root() -> Path:
    """Where what was computed from data sets is kept: `$WARPLOOM_CACHE`, or `~/.cache/warploom`."""
    return Path(os.environ.get("WARPLOOM_CACHE") or "~/.cache/warploom").expanduser()


def fetch(name: str, *, root: Path | None = None, progress: Progress | None = None) -> list[Path]:
    """Download the official archives of a data set; those that are already there are left as they are.

    Args:
        name: a key of `ARCHIVES`.
        root: the data folder; `data_root()` when None. Files go to `<root>/<name>/`.
        progress: called as progress(file name, bytes so far, bytes in all or None) while bytes arrive.

    Returns:
        The paths of the archives, in the order of the table.

    Raises:
        NotFound: no such data set.
        Unavailable: a server did not answer, or answered with an error.
        WireError: the bytes that came have another checksum; nothing is left behind.

    Example:
        >>> fetch("mnist")
        Traceback (most recent call last):
        warploom.errors.NotFound: no data set 'mnist'; there are: cifar10, ml-100k, ml-1m, omniglot
    """
    if name not in ARCHIVES:
        known = ", ".join(sorted(ARCHIVES))
        raise NotFound(f"no data set {name!r}; there are: {known}", field="name", rule=f"one of: {known}", value=name)
    folder = (data_root() if root is None else root) / name
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch_one(archive, folder / archive.name, progress) for archive in ARCHIVES[name]]


def _fetch_one(archive: Archive, target: Path, progress: Progress | None) -> Path:
    if target.exists():
        return target
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{archive.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as sink:
            digest = _download(archive, sink.write, progress)
        if digest != archive.md5:
            raise WireError(
                f"{archive.url} came with MD5 {digest}, not the published {archive.md5}; nothing was kept",
                field=archive.name,
                rule=f"md5 {archive.md5}",
                value=digest,
            )
        part.chmod(0o644)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _download(archive: Archive, write: Callable[[bytes], object], progress: Progress | None) -> str:
    """Stream the archive into `write`; the MD5 of what came."""
    import httpx

    digest = hashlib.md5(usedforsecurity=False)
    try:
        with httpx.stream("GET", archive.url, follow_redirects=True, timeout=60.0) as response:
            response.raise_for_status()
            total = _length(response)
            for chunk in response.iter_bytes(1 << 16):
                write(chunk)
                digest.update(chunk)
                if progress is not None:
                    progress(archive.name, response.num_bytes_downloaded, total)
    except httpx.HTTPError as error:
        raise Unavailable(f"could not download {archive.url}: {error}", field=archive.name) from error
    return digest.hexdigest()


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdigit() else None
