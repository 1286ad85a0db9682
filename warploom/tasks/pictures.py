"""Photographs as tensors: decoding, a bounded cache of decoded ones, and normalisation.

Shape suffixes: B batch, C channels, H height, W width, N pictures asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warploom.errors import WireError
from warploom.pictures import read_picture
from warploom.tasks.configs.pictures import PictureConfig


def decode(path: Path, shape: tuple[int, ...], fit: str) -> Tensor:
    """A picture file at a given size.

    The camera's orientation is obeyed, and what is transparent becomes white.

    Args:
        path: any format that Pillow reads, 8 bits a channel.
        shape: (C, H, W) with C 1 for grey or 3 for colour.
        fit: `squash` changes the aspect, `crop` takes the middle.

    Returns:
        [C, H, W] uint8, by Lanczos where the size differs.

    Raises:
        WireError: no picture, or one of more than 8 bits a channel.
    """
    try:
        pixels_CHW = read_picture(path, shape, fit)
    except ValueError as error:
        rule = "a picture that Pillow can read, of 8 bits a channel"
        raise WireError(f"{path} is not {rule}: {error}", field=str(path), rule=rule, value=path.name) from error
    return torch.from_numpy(pixels_CHW).contiguous()


class PictureCache:
    """Decoded pictures by number: each is decoded at its first use and kept while there is room.

    Args:
        make: the picture of a number, uint8 of `shape`.
        count: how many there are.
        shape: (C, H, W).
        limit_bytes: most bytes of pixels to keep; what does not fit is decoded at each use.
    """

    def __init__(self, make: Callable[[int], Tensor], count: int, shape: tuple[int, ...], limit_bytes: int) -> None:
        self._make, self._shape = make, shape
        rows = min(count, limit_bytes // int(np.prod(shape)))
        self._pixels = torch.empty(rows, *shape, dtype=torch.uint8)  # memory is used as rows are written
        self._row: dict[int, int] = {}
        self._lock = threading.Lock()

    def take(self, numbers: Sequence[int]) -> Tensor:
        """The pictures of these numbers: [N, C, H, W] uint8, a copy."""
        found = torch.empty(len(numbers), *self._shape, dtype=torch.uint8)
        for n, number in enumerate(numbers):
            row = self._row.get(number)
            found[n] = self._made(number) if row is None else self._pixels[row]
        return found

    def _made(self, number: int) -> Tensor:
        made = self._make(number)
        with self._lock:
            row = len(self._row)
            if row < len(self._pixels) and number not in self._row:
                self._pixels[row] = made
                self._row[number] = row  # last: another thread may look here without the lock
        return made


def normalised(config: PictureConfig, pixels_BCHW: Tensor) -> Tensor:
    """(pixel / 255 − mean) / std.

    Args:
        config: `mean` and `std`.
        pixels_BCHW: uint8.

    Returns:
        [B, C, H, W] float32.
    """
    mean, std = (torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1) for numbers in (config.mean, config.std))
    return (pixels_BCHW / 255.0 - mean) / std
