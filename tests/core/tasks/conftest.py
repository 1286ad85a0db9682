"""A tiny Omniglot: archives of the official layout with few alphabets, drawn here; tiny picture sets beside it."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.pictures import cifar_bodies, write_cifar, write_classes

ALPHABETS = {"images_background": 7, "images_evaluation": 5}
CHARACTERS = 6
DRAWINGS = 20


def pillow_png(paper: NDArray[np.bool_]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(paper).save(file, "PNG")
    return file.getvalue()


def unfiltered_png(paper: NDArray[np.bool_]) -> bytes:
    """A 1-bit PNG with no filter on any row, as the official drawings are."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", paper.shape[1], paper.shape[0], 1, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(paper, axis=1))
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def _write_archive(path: Path, part: str, alphabets: int, drawings: int = DRAWINGS) -> None:
    chance = np.random.default_rng(alphabets)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir(part)
        for a in range(alphabets):
            for c in range(1, CHARACTERS + 1):
                for d in range(1, drawings + 1):
                    paper = np.ones((105, 105), dtype=bool)
                    row, column = chance.integers(10, 60, 2)
                    paper[row : row + 30, column : column + 4] = False
                    paper[row : row + 4, column : column + 10 + 2 * d] = False
                    paper[98:104, 8 * c : 8 * c + 4] = False
                    paper[92:96, 6 * a + (50 if part == "images_evaluation" else 0) :][:, :5] = False
                    png = unfiltered_png(paper) if d % 2 else pillow_png(paper)
                    archive.writestr(f"{part}/{part[7]}-{a}/character{c:02}/{c:04}_{d:02}.png", png)


@pytest.fixture
def write_archive() -> Callable[..., None]:
    return _write_archive


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "omniglot").mkdir()
    for part, alphabets in ALPHABETS.items():
        _write_archive(root / "omniglot" / f"{part}.zip", part, alphabets)
    for part, kinds in (("train", range(7)), ("val", range(7, 11)), ("test", range(11, 16))):
        write_classes(root / "pictures" / part, {f"class{kind}": kind for kind in kinds})
    write_cifar(root / "cifar10", cifar_bodies())
    return root


@pytest.fixture
def tiny_omniglot(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment points at the tiny archives, and the tiny sets beside them, and at an empty cache."""
    monkeypatch.setenv("WARPLOOM_DATA", str(tiny_root))
    monkeypatch.setenv("WARPLOOM_CACHE", str(tmp_path / "cache"))
    return tiny_root


@pytest.fixture
def real_omniglot(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment points at the real archives; skips where there are none."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    for root in (Path(os.environ.get("WARPLOOM_DATA", beside)), beside):
        if (root / "omniglot" / "images_evaluation.zip").is_file():
            monkeypatch.setenv("WARPLOOM_DATA", str(root))
            if "WARPLOOM_CACHE" not in os.environ:
                monkeypatch.setenv("WARPLOOM_CACHE", str(tmp_path_factory.getbasetemp() / "omniglot-cache"))
            return root
    pytest.skip("the Omniglot archives are not here")
