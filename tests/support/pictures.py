"""Small data sets of pictures, each of which can be told by its pixels, laid out as their publishers do."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def picture(kind: int, number: int, side: int = 16) -> NDArray[np.uint8]:
    """[side, side, 3]: red tells the class, green the number; the left edge is blue."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = 5 * kind + 10, 3 * number + 10
    pixels[:, : side // 4, 2] = 200
    return pixels


def write_classes(root: Path, classes: Mapping[str, int], pictures: int = 8, side: int = 16) -> None:
    """`root/<name>/<number>.png` for each class name and its number."""
    for name, kind in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(pictures):
            Image.fromarray(picture(kind, number, side)).save(root / name / f"{number:03}.png")


def told(x_N: Tensor) -> list[tuple[int, int]]:
    """(class, number) of each picture [3, side, side] in [0, 1]."""
    pixels = (x_N * 255).round().int()[:, :, -1, -1]
    return [((red - 10) // 5, (green - 10) // 3) for red, green, _ in pixels.tolist()]


def cifar_records(start: int, count: int) -> bytes:
    """Records of images start, start + 1, ...: label = number % 10; the first two pixels of red tell the number."""
    records = np.random.default_rng(start).integers(0, 256, (count, 3073), dtype=np.uint8)
    numbers = np.arange(start, start + count)
    records[:, 0] = numbers % 10
    records[:, 1], records[:, 2] = numbers // 256, numbers % 256
    return records.tobytes()


def cifar_bodies(each: int = 60) -> dict[str, bytes]:
    """The six files, of so many images each."""
    return {name: cifar_records(i * each, each) for i, name in enumerate(CIFAR_FILES)}


def write_cifar(folder: Path, bodies: Mapping[str, bytes]) -> None:
    """The files as they lie when unpacked."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        (folder / name).write_bytes(body)


def write_cifar_archive(path: Path, bodies: Mapping[str, bytes]) -> None:
    """The files in an archive, with the notes that are in the official one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, body in {"batches.meta.txt": b"airplane\n", **bodies, "readme.html": b"<html>"}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))


def cifar_numbers(x_N: Tensor) -> list[int]:
    """The number of each image [3, 32, 32] in [0, 1]."""
    pixels = (x_N * 255).round().int()[:, 0, 0, :2]
    return [int(high) * 256 + int(low) for high, low in pixels.tolist()]
