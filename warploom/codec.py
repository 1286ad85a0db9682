"""Experiences, meta-states and adapted parameters as bytes, and back. The only bridge between tensors and the wire."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from warploom import chunks, wire
from warploom.errors import WireError
from warploom.spec import JobSpec
from warploom.types import Experience, MetaState, TaskRef, Tensors

Dtype = Literal["float32", "bfloat16"]
CHUNK_BYTES = 512 * 1024


def pack_experiences(
    experiences: Sequence[Experience],
    *,
    dtype: Dtype = "float32",
    delta: bool = False,
    compression: chunks.Compression = "none",
    chunk_bytes: int = CHUNK_BYTES,
) -> list[bytes]:
    """A unit of work as chunks of about `chunk_bytes` each (`warploom.chunks`).

    A chunk holds some points of one experience; the first chunk of each also holds its gradient and statistics, which
    always travel in their own precision, as do the first point under `delta` and single numbers (counters of the
    inner optimiser).

    Args:
        experiences: what one rollout call gave, in order.
        dtype: precision of the points.
        delta: store points as their difference to the first: exact in float32 (the bits that differ, which compress
            well), and in bfloat16 with an error in proportion to the way travelled and not to the weights.
        compression: of each chunk.
        chunk_bytes: points are split at about this size before compression; at least one point per chunk.
    """
    how = _How(dtype, delta, compression, chunk_bytes)
    return [chunk for i, experience in enumerate(experiences) for chunk in _chunks(i, experience, how)]


def unpack_experiences(blobs: Sequence[bytes]) -> list[Experience]:
    """The experiences of one unit from its chunks, in order.

    Raises:
        WireError: corrupt, foreign, incomplete, or non-finite numbers.
    """
    parts: dict[int, list[_Read]] = {}
    for blob in blobs:
        header, arrays = chunks.decode(blob)
        parts.setdefault(header.get("experience", -1), []).append((header, arrays))
    try:
        return [_join(parts[i]) for i in sorted(parts)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise WireError(f"a chunk that is not one of an experience: {error!r}") from None


def pack_meta(meta: MetaState) -> bytes:
    """A meta-state as one blob."""
    arrays = {f"p/{name}": _array(v) for name, v in meta.params.items()}
    arrays |= {f"s/{name}": _array(v) for name, v in meta.stats.items()}
    return wire.encode("meta", arrays, {"version": meta.version})


def unpack_meta(blob: bytes) -> MetaState:
    """The meta-state in a blob of `pack_meta`."""
    arrays, header = wire.decode("meta", blob)
    tensors = {name: _tensor(array) for name, array in arrays.items()}
    return MetaState(int(header["version"]), _part(tensors, "p/"), _part(tensors, "s/"))


def pack_model(spec: JobSpec, meta: MetaState) -> bytes:
    """A trained model with the spec that made it: all that is needed to adapt it anywhere."""
    arrays = {f"p/{name}": _array(v) for name, v in meta.params.items()}
    arrays |= {f"s/{name}": _array(v) for name, v in meta.stats.items()}
    return wire.encode("model", arrays, {"version": meta.version, "spec": spec.to_json()})


def unpack_model(blob: bytes) -> tuple[JobSpec, MetaState]:
    """Spec and meta-state of a blob of `pack_model`."""
    arrays, header = wire.decode("model", blob)
    tensors = {name: _tensor(array) for name, array in arrays.items()}
    meta = MetaState(int(header["version"]), _part(tensors, "p/"), _part(tensors, "s/"))
    return JobSpec.parse(header["spec"]), meta


def pack_tensors(kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None = None) -> bytes:
    """Named tensors as a blob of this kind."""
    return wire.encode(kind, {name: _array(value) for name, value in tensors.items()}, header)


def unpack_tensors(kind: str, blob: bytes) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and header of a blob of `pack_tensors`."""
    arrays, header = wire.decode(kind, blob)
    return {name: _tensor(array) for name, array in arrays.items()}, header


@dataclass(frozen=True, slots=True)
class _How:
    dtype: Dtype
    delta: bool
    compression: chunks.Compression
    chunk_bytes: int


_Read = tuple[dict[str, Any], dict[str, wire.Array]]


def _chunks(i: int, experience: Experience, how: _How) -> Iterator[bytes]:
    count = len(experience.steps)
    width = 2 if how.dtype == "bfloat16" else 4
    point_bytes = sum(value[0].numel() for value in experience.points.values()) * width if count else 1
    size = max(1, how.chunk_bytes // max(1, point_bytes))
    points = {name: _array(value) for name, value in experience.points.items()}
    for start in range(0, max(1, count), size):
        arrays = {
            key: array
            for name, value in points.items()
            for key, array in _stored(name, value, slice(start, start + size), how)
        }
        if start == 0:
            arrays |= {f"g/{name}": _array(v) for name, v in experience.gradient.items()}
            arrays |= {f"s/{name}": _array(v) for name, v in experience.stats.items()}
        header = {
            "experience": i,
            "points": count,
            "ref": [experience.ref.split, experience.ref.index, experience.ref.seed],
            "version": experience.version,
            "steps": list(experience.steps[start : start + size]),
            "metrics": _speakable(experience.metrics) if start == 0 else {},
        }
        yield chunks.encode(header, arrays, how.compression)


def _stored(name: str, value: wire.Array, rows: slice, how: _How) -> Iterator[tuple[str, wire.Array]]:
    """The arrays that stand for these points of one parameter; the letter before the name says how they are stored."""
    if value.dtype != np.float32 or value[0].size == 1 or (how.dtype == "float32" and not how.delta):
        yield f"p/{name}", value[rows]
        return
    base, own = value[:1], value[rows]
    if how.delta and rows.start == 0:
        yield f"b/{name}", base
        own = own[1:]
    if how.delta and how.dtype == "float32":
        yield f"x/{name}", own.view(np.uint32) ^ base.view(np.uint32)
    else:
        yield (f"d/{name}", _halved(own - base)) if how.delta else (f"h/{name}", _halved(own))


def _halved(value: wire.Array) -> wire.Array:
    """bfloat16, which numpy lacks, as the bits of unsigned integers."""
    return np.asarray(torch.from_numpy(np.asarray(value, order="C")).to(torch.bfloat16).view(torch.uint16).numpy())


def _join(parts: Sequence[_Read]) -> Experience:
    header = parts[0][0]
    split, index, seed = header["ref"]
    steps = tuple(step for own, _ in parts for step in own["steps"])
    if len(steps) != header["points"] or any(own["ref"] != header["ref"] for own, _ in parts):
        raise WireError(f"{len(steps)} points of an experience that has {header['points']}")
    rows: dict[str, list[tuple[str, wire.Array]]] = {}
    for _, arrays in parts:
        for key, array in arrays.items():
            rows.setdefault(key if key[0] in "gs" else f"p/{key[2:]}", []).append((key[0], array))
    whole = {name: _finite(name, _rebuilt(stored)) for name, stored in rows.items()}
    points = _part(whole, "p/")
    if any(len(value) != len(steps) for value in points.values()):
        raise WireError(f"{len(steps)} steps and another number of points")
    return Experience(
        ref=TaskRef(split, index, seed),
        version=header["version"],
        steps=steps,
        points=points,
        gradient=_part(whole, "g/"),
        stats=_part(whole, "s/"),
        metrics={name: float(value) for name, value in header["metrics"].items()},
    )


def _rebuilt(stored: Sequence[tuple[str, wire.Array]]) -> Tensor:
    """One tensor of what the chunks hold of it, written once."""
    kinds, arrays = zip(*stored, strict=True)
    if kinds[0] in "gs":
        return torch.from_numpy(arrays[0].copy())
    shape, exact = arrays[0].shape[1:], kinds[0] == "p"
    count = sum(len(array) for array in arrays)
    whole = np.empty((count, *shape), arrays[0].dtype if exact else np.float32)
    base, start = arrays[0], 0
    for kind, array in stored:
        _write(whole[start : start + len(array)], kind, array, base)
        start += len(array)
    return torch.from_numpy(whole)


def _write(rows: wire.Array, kind: str, array: wire.Array, base: wire.Array) -> None:
    bits = rows.view(np.uint32) if kind in "xhd" else rows
    if kind in "pb":
        np.copyto(rows, array)
    elif kind == "x":
        np.bitwise_xor(array, base.view(np.uint32), out=bits)
    else:
        np.copyto(bits, array)
        np.left_shift(bits, 16, out=bits)
        if kind == "d":
            np.add(rows, base, out=rows)


def _finite(name: str, value: Tensor) -> Tensor:
    # A sum is finite only if all it adds are, and many times faster to look at; it may overflow without that.
    if value.is_floating_point() and not math.isfinite(float(value.sum())) and not bool(torch.isfinite(value).all()):
        raise WireError(f"{name} holds a number that is not finite", field=name, rule="finite")
    return value


def _speakable(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Numbers that JSON has no word for (the loss of a task that diverged) as text."""
    return {name: value if math.isfinite(value) else repr(value) for name, value in metrics.items()}


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _array(value: Tensor) -> wire.Array:
    return np.asarray(value.detach().cpu().contiguous().numpy())


def _tensor(array: wire.Array) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())
