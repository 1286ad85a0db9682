"""Chunks of trajectory points as bytes: a versioned header with a checksum, then the arrays. No torch, no pickle.

    offset  bytes
    0       4      WLPT
    4       1      layout, now 2
    5       1      compression: 0 none, 1 lz4 (bytes of equal rank side by side, then one lz4 block)
    6       2      zero
    8       4      CRC-32 of bytes 4 to 8, of bytes 12 to 24 + H, and of the body's digest
    12      4      length H of the text header, a multiple of 8
    16      8      length of the body before compression
    24      H      JSON: {"header": …, "arrays": [[name, dtype, shape], …]}
    24 + H         the body: the arrays in that order, each padded to 8 bytes

All numbers are little-endian. A chunk is made with one copy of its arrays and read with none.

The body's digest is the body itself below 64 KiB, and otherwise, for each whole row of 2 KiB, the sum modulo 2^64 of
its 64-bit words, and then what is left of the body as it is: a CRC of all of it would take longer than to send it. A
change within one word changes the sum of its row, rows that change places change the CRC, and of other damage one case
in 2^32 passes; words that change places within a row are not noticed.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from warploom.errors import SetupError, WireError

Array = NDArray[Any]
Compression = Literal["none", "lz4"]

MAGIC = b"WLPT"
LAYOUT = 2
START = 24
ROW = 2048
SUMMED = 32 * ROW
DTYPES = {
    name: np.dtype(name) for name in ("bool", "uint8", "uint16", "uint32", "int32", "int64", "float32", "float64")
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_FIXED = struct.Struct("<4sBBHIIQ")
_CODES = {"none": 0, "lz4": 1}
_LZ4_MOST = 255  # no lz4 block is more than so many times smaller than what it holds


def encode(header: Mapping[str, Any], arrays: Mapping[str, Array], compression: Compression = "none") -> bytes:
    """A chunk.

    Args:
        header: JSON values.
        arrays: named arrays of a dtype in `DTYPES`.
        compression: of the body.

    Example:
        >>> header, arrays = decode(encode({"n": 1}, {"a": np.ones(2, np.float32)}, "lz4"))
        >>> header["n"], arrays["a"].tolist()
        (1, [1.0, 1.0])
    """
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    table = [[name, _NAMES.get(array.dtype) or array.dtype.name, array.shape] for name, array in whole.items()]
    text = _JSON.encode({"header": dict(header), "arrays": table}).encode()
    text += b" " * (-len(text) % 8)
    body, size = _body(whole, compression)
    start = _FIXED.pack(MAGIC, LAYOUT, _CODES[compression], 0, 0, len(text), size)
    chunk = BytesIO(b"".join([start, text, *body]))  # gives its bytes away without a copy
    with chunk.getbuffer() as view:
        struct.pack_into("<I", view, 8, _checksum(view, START + len(text)))
    return chunk.getvalue()


def decode(blob: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a chunk; arrays of an uncompressed one are read-only views of `blob`.

    Raises:
        WireError: foreign, of another layout, truncated or corrupt.
    """
    code, text_size, size = _checked(blob)
    try:
        found = json.loads(blob[START : START + text_size].decode())
        table = [(name, DTYPES[dtype], tuple(shape)) for name, dtype, shape in found["arrays"]]
        body = memoryview(blob)[START + text_size :]
        if code:
            body = _unpacked(body, size)
        if len(body) != size or sum(_padded(dtype, shape) for _, dtype, shape in table) != size:
            raise WireError(f"the body has {len(body)} bytes and its header says {size}")
        return found["header"], _views(body, table, shuffled=bool(code))
    except (ValueError, KeyError, TypeError) as error:  # our checksum over another's content
        raise WireError(f"corrupt chunk: {error}") from None


def _checked(blob: bytes) -> tuple[int, int, int]:
    """Compression, length of the text and of the body, once the checksum fits."""
    if len(blob) < START or blob[:4] != MAGIC:
        raise WireError(f"not a chunk of points: {len(blob)} bytes that begin with {blob[:4]!r}")
    _, layout, code, _, crc, text_size, size = _FIXED.unpack_from(blob)
    if layout != LAYOUT or code not in _CODES.values():
        raise WireError(f"a chunk of layout {layout}, compression {code} is not known here", rule=f"layout = {LAYOUT}")
    if _checksum(memoryview(blob), START + text_size) != crc:
        raise WireError(f"the checksum of a chunk of {len(blob)} bytes does not fit: truncated or corrupt")
    return code, text_size, size


def _checksum(chunk: memoryview, start: int) -> int:
    """What bytes 8 to 12 say of the others; the body begins at `start`."""
    crc = zlib.crc32(chunk[12:start], zlib.crc32(chunk[4:8]))
    rest = start
    if len(chunk) - start >= SUMMED:
        count = (len(chunk) - start) // ROW
        rows = np.frombuffer(chunk, "<u8", count * ROW // 8, start).reshape(count, ROW // 8)
        crc = zlib.crc32(np.add.reduce(rows, axis=1).astype("<u8", copy=False), crc)
        rest += count * ROW
    return zlib.crc32(chunk[rest:], crc)


def _body(arrays: Mapping[str, Array], compression: Compression) -> tuple[list[Any], int]:
    """The body in pieces, and its length before compression."""
    pieces: list[Any] = []
    for array in arrays.values():
        raw = array.reshape(-1).view(np.uint8)
        if compression != "none":
            raw = np.ascontiguousarray(raw.reshape(-1, array.itemsize).T).reshape(-1)
        pieces += [raw.data, b"\0" * (-raw.nbytes % 8)]
    size = sum(len(piece) for piece in pieces)
    if compression == "lz4":
        return [_lz4().compress(b"".join(pieces), store_size=False)], size
    return pieces, size


def _unpacked(body: memoryview, size: int) -> memoryview:
    if size > _LZ4_MOST * len(body):
        raise WireError(f"{len(body)} compressed bytes cannot hold {size}")
    try:
        return memoryview(_lz4().decompress(body, uncompressed_size=size))
    except _lz4().LZ4BlockError as error:
        raise WireError(f"corrupt chunk: {error}") from None


def _padded(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    count = math.prod(shape)
    if not isinstance(count, int) or any(n < 0 for n in shape):
        raise ValueError(f"shape {shape}")
    return -(-count * dtype.itemsize // 8) * 8


def _views(
    body: memoryview, table: list[tuple[str, np.dtype[Any], tuple[int, ...]]], *, shuffled: bool
) -> dict[str, Array]:
    arrays, start = {}, 0
    for name, dtype, shape in table:
        count = math.prod(shape)
        if shuffled:
            ranks = np.frombuffer(body, np.uint8, count * dtype.itemsize, start).reshape(dtype.itemsize, count)
            arrays[name] = np.ascontiguousarray(ranks.T).view(dtype).reshape(shape)
        else:
            arrays[name] = np.frombuffer(body, dtype, count, start).reshape(shape)
        start += _padded(dtype, shape)
    return arrays


def _lz4() -> Any:
    try:
        import lz4.block
    except ImportError:
        raise SetupError("compression of the replay needs the lz4 package: pip install lz4") from None
    return lz4.block
