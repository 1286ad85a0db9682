"""Named arrays as bytes: the safetensors format with a small text header. No pickle, no torch.

A blob says what it is (`kind`) and which layout it has (`layout`), so that a foreign, truncated or future one is
refused by name and not by a crash.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy
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
MOST_ARRAYS = 64
_MEMBER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}\.npy")
_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_ZIP_MEMBER = b"PK\x01\x02"


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

    Nothing is unpacked before the archive's own table says that it stays within the budget, and no array is made that
    is larger than what was unpacked for it. Only what numpy writes is accepted: plain members, stored or deflated.

    Args:
        blob: the file.
        max_bytes: largest size of all arrays together once unpacked, in bytes.

    Raises:
        WireError: not a zip of plain arrays, or larger than it may be.
    """
    # Opening an archive costs memory for each member, so a table of millions is refused before.
    if blob.count(_ZIP_MEMBER) > 100 * MOST_ARRAYS:
        raise WireError("holds too many members", rule=f"at most {MOST_ARRAYS} arrays")
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            _check_members(members, max_bytes)
            return {member.filename.removesuffix(".npy"): _read_npy(archive, member) for member in members}
    except _UNREADABLE as error:
        raise WireError(f"not a readable npz file: {error}") from None


def _check_members(members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(members) > MOST_ARRAYS:
        raise WireError(f"holds {len(members)} members", rule=f"at most {MOST_ARRAYS} arrays", value=len(members))
    names = [member.filename for member in members]
    bad = next((name for name in names if not _MEMBER_NAME.fullmatch(name) or names.count(name) > 1), None)
    if bad is not None:
        rule = "plain names that end in .npy, each once"
        raise WireError(f"holds a member named {bad[:100]!r}", rule=rule, value=bad[:100])
    odd = [member.compress_type for member in members if member.compress_type not in _COMPRESSION]
    if odd or any(member.flag_bits & _ENCRYPTED for member in members):
        raise WireError("holds a member that is encrypted or packed in an odd way", rule="stored or deflated")
    unpacked = sum(member.file_size for member in members)
    if unpacked > max_bytes:
        raise WireError(f"unpacks to {unpacked} bytes", rule=f"at most {max_bytes} bytes", value=unpacked)


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        # What was declared bounds what is unpacked; one byte more would show that the declaration is false.
        raw = stream.read(member.file_size + 1)
    file = io.BytesIO(raw)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise WireError(f"{member.filename}: npy version {version} is not known here", rule="version 1.0 or 2.0")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_column, dtype = read_header(file)
    # Text is let through: whoever wants numbers says so with the field's name.
    if dtype.hasobject or dtype.kind not in "biufcSU":
        raise WireError(f"{member.filename}: holds {dtype}, not numbers", rule="an array of numbers", value=str(dtype))
    stated, there = math.prod(shape) * dtype.itemsize, len(raw) - file.tell()
    if stated != there or any(side < 0 for side in shape):
        raise WireError(f"{member.filename}: {there} bytes for shape {list(shape)[:10]} of {dtype}", value=there)
    array = np.frombuffer(raw, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if by_column else "C")
