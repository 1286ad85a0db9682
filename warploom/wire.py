"""Named arrays as bytes: the safetensors format with a small text header. No pickle, no torch.

A blob says what it is (`kind`) and which layout it has (`layout`), so that a foreign, truncated or future one is
refused by name and not by a crash.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from warploom.errors import WireError

LAYOUT = 1
# All that the zip and npy readers raise on damaged or hostile files.
_UNREADABLE = (
    ValueError, OSError, EOFError, KeyError, MemoryError, RuntimeError, NotImplementedError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
Array = NDArray[Any]


def encode(kind: str, arrays: Mapping[str, Array], header: Mapping[str, Any] | None = None) -> bytes:
    """Arrays and a JSON header as one blob.

    Args:
        kind: what the blob is (`points`, `meta`, `support`…).
        arrays: named arrays of any numeric dtype.
        header: JSON values.

    Example:
        >>> arrays, header = decode("demo", encode("demo", {"a": np.ones(2)}, {"n": 1}))
        >>> header["n"], arrays["a"].tolist()
        (1, [1.0, 1.0])
    """
    meta = {"kind": kind, "layout": str(LAYOUT), "header": json.dumps(dict(header or {}), sort_keys=True)}
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata=meta)


def decode(kind: str, blob: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the header of a blob of this `kind`.

    Raises:
        WireError: truncated, corrupt, of another kind or layout.
    """
    meta = _metadata(blob)
    if meta.get("kind") != kind:
        raise WireError(f"expected a {kind!r} blob, got {meta.get('kind')!r}", rule=f"kind = {kind}")
    if meta.get("layout") != str(LAYOUT):
        raise WireError(f"layout {meta.get('layout')!r} of {kind!r} is not known here", rule=f"layout = {LAYOUT}")
    try:
        return load(blob), json.loads(meta["header"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise WireError(f"corrupt {kind!r} blob: {error}") from None


def _metadata(blob: bytes) -> dict[str, str]:
    size = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or size > len(blob) - 8:
        raise WireError(f"truncated blob: {len(blob)} bytes")
    try:
        header = json.loads(blob[8 : 8 + size])
        return dict(header["__metadata__"])
    except (ValueError, KeyError, TypeError):
        raise WireError("not a blob of ours: no readable header") from None


def read_npz(blob: bytes, *, max_bytes: int) -> dict[str, Array]:
    """The arrays of an `.npz` file, read without pickle and within a budget.

    Args:
        blob: the file.
        max_bytes: largest size of all arrays together once unpacked, in bytes.

    Raises:
        WireError: not a zip of plain arrays, or larger than it may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max_bytes:
            raise WireError(f"unpacks to {unpacked} bytes", rule=f"at most {max_bytes} bytes", value=unpacked)
        with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _UNREADABLE as error:
        raise WireError(f"not a readable npz file: {error}") from None
