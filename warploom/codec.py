"""Experiences, meta-states and adapted parameters as bytes, and back. The only bridge between tensors and the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from warploom import wire
from warploom.errors import WireError
from warploom.spec import JobSpec
from warploom.types import Experience, MetaState, TaskRef, Tensors

Dtype = Literal["float32", "bfloat16"]
CHUNK_BYTES = 512 * 1024


def pack_experiences(
    experiences: Sequence[Experience], *, dtype: Dtype = "float32", chunk_bytes: int = CHUNK_BYTES
) -> list[bytes]:
    """A unit of work as chunks of about `chunk_bytes` each.

    A chunk holds some points of one experience; the first chunk of each also holds its gradient and statistics, which
    always travel in their own precision.

    Args:
        experiences: what one rollout call gave, in order.
        dtype: precision of the points.
        chunk_bytes: points are split at about this size; at least one point per chunk.
    """
    return [chunk for i, experience in enumerate(experiences) for chunk in _chunks(i, experience, dtype, chunk_bytes)]


def unpack_experiences(chunks: Sequence[bytes]) -> list[Experience]:
    """The experiences of one unit from its chunks, in order.

    Raises:
        WireError: corrupt, foreign, or non-finite numbers.
    """
    parts: dict[int, list[tuple[dict[str, Any], Tensors]]] = {}
    for chunk in chunks:
        arrays, header = wire.decode("points", chunk)
        tensors = {name: _tensor(array, header["dtype"]) for name, array in arrays.items()}
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise WireError(f"{name} holds a number that is not finite", field=name, rule="finite")
        parts.setdefault(header["experience"], []).append((header, tensors))
    return [_join(parts[i]) for i in sorted(parts)]


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


def _chunks(i: int, experience: Experience, dtype: Dtype, chunk_bytes: int) -> Iterator[bytes]:
    count = len(experience.steps)
    width = 2 if dtype == "bfloat16" else 4
    point_bytes = sum(value[0].numel() for value in experience.points.values()) * width if count else 1
    size = max(1, chunk_bytes // max(1, point_bytes))
    for start in range(0, max(1, count), size):
        arrays = {f"p/{name}": _array(v[start : start + size], dtype) for name, v in experience.points.items()}
        if start == 0:
            arrays |= {f"g/{name}": _array(v) for name, v in experience.gradient.items()}
            arrays |= {f"s/{name}": _array(v) for name, v in experience.stats.items()}
        yield wire.encode(
            "points",
            arrays,
            {
                "experience": i,
                "dtype": dtype,
                "ref": [experience.ref.split, experience.ref.index, experience.ref.seed],
                "version": experience.version,
                "steps": list(experience.steps[start : start + size]),
                "metrics": dict(experience.metrics) if start == 0 else {},
            },
        )


def _join(parts: Sequence[tuple[dict[str, Any], Tensors]]) -> Experience:
    header, first = parts[0]
    split, index, seed = header["ref"]
    points = [_part(tensors, "p/") for _, tensors in parts]
    return Experience(
        ref=TaskRef(split, index, seed),
        version=header["version"],
        steps=tuple(step for own, _ in parts for step in own["steps"]),
        points={name: torch.cat([p[name] for p in points]) for name in points[0]},
        gradient=_part(first, "g/"),
        stats=_part(first, "s/"),
        metrics=header["metrics"],
    )


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _array(value: Tensor, dtype: Dtype = "float32") -> wire.Array:
    """As numpy; bfloat16, which numpy lacks, as the bits of unsigned integers."""
    value = value.detach().cpu().contiguous()
    if dtype == "bfloat16" and value.dtype == torch.float32:
        return np.asarray(value.to(torch.bfloat16).view(torch.uint16).numpy())
    return np.asarray(value.numpy())


def _tensor(array: wire.Array, dtype: str = "float32") -> Tensor:
    value = torch.from_numpy(array if array.flags.writeable else array.copy())
    if dtype == "bfloat16" and value.dtype == torch.uint16:
        return value.view(torch.bfloat16).float()
    return value
