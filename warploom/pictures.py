"""Picture files as pixels, for families that train on them and for the API that takes them. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_DEEP = ("I", "F")  # pillow's modes of more than 8 bits a channel begin so


def read_picture(
    source: Path | BinaryIO,
    shape: tuple[int, ...],
    fit: str,
    *,
    formats: tuple[str, ...] | None = None,
    most_pixels: int | None = None,
) -> NDArray[Any]:
    """A picture at a given size.

    The camera's orientation is obeyed, and what is transparent becomes white.

    Args:
        source: a file of 8 bits a channel.
        shape: (C, H, W) with C 1 for grey or 3 for colour.
        fit: `squash` changes the aspect, `crop` takes the middle.
        formats: names that Pillow has for them; default: all that it reads.
        most_pixels: a picture that says it has more is not decoded.

    Returns:
        [C, H, W] uint8, by Lanczos where the size differs.

    Raises:
        ValueError: no picture of these formats, or one of more pixels or of more than 8 bits a channel.
    """
    from PIL import Image, ImageOps  # late: most processes never see a picture

    channels, height, width = shape
    try:
        with Image.open(source, formats=formats) as file:
            if most_pixels is not None and file.width * file.height > most_pixels:
                raise ValueError(f"it has {file.width} x {file.height} pixels")
            if file.mode.startswith(_DEEP):
                raise ValueError(f"it has more than 8 bits a channel (mode {file.mode})")
            picture = ImageOps.exif_transpose(file)
            if picture.has_transparency_data:
                clear = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
            picture = picture.convert("RGB" if channels == 3 else "L")
        if picture.size != (width, height):
            fitted = ImageOps.fit if fit == "crop" else Image.Image.resize
            picture = fitted(picture, (width, height), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1)
