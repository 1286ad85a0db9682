"""Picture files as a model's inputs: as its task family reads the files that it trains on."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from starlette.datastructures import UploadFile

from warploom.errors import InvalidInput
from warploom.pictures import read_picture
from warploom.records import Model

MULTIPART = "multipart/form-data"
CLASS = re.compile(r"support\[(\d{1,6})\]")
QUERY = "query"
FORMATS = ("PNG", "JPEG")
# Decoded before it is made smaller: a file of a few kilobytes can say that it is gigantic.
MOST_PIXELS = 2**24
MOST_FILES = 20_000
# The white paper of these families is 0 and the dark ink 1.
INK = ("omniglot", "glyphs")


async def uploaded(request: Request) -> tuple[dict[str, list[bytes]], dict[str, str]]:
    """The files of a form by the name of their field, and its other fields."""
    files: dict[str, list[bytes]] = {}
    fields: dict[str, str] = {}
    async with request.form(max_files=MOST_FILES, max_fields=100, max_part_size=2**16) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(name, []).append(await value.read())
            else:
                fields[name] = value
    return files, fields


def task_of(model: Model, files: Mapping[str, list[bytes]]) -> tuple[NDArray[Any], list[int], NDArray[Any] | None]:
    """Support inputs, their classes and queries, from files whose fields are `support[<class>]` and `query`.

    Raises:
        InvalidInput: a field of another name, or a file that is no PNG or JPEG; with a pointer to it.
    """
    x, y = [], []
    for name, contents in files.items():
        label = CLASS.fullmatch(name)
        if label is None and name != QUERY:
            rule = "support[<class number>] or query"
            raise InvalidInput(f"/{name[:50]}: files go into {rule}", field=f"/{name[:50]}", rule=rule, value=name[:50])
        if label is not None:
            x += _inputs(model, name, contents)
            y += [int(label[1])] * len(contents)
    if not x:
        rule = "at least one file support[<class number>]"
        raise InvalidInput(f"/support: {rule}", field="/support", rule=rule, value=0)
    return np.stack(x), y, queries_of(model, files) if QUERY in files else None


def queries_of(model: Model, files: Mapping[str, list[bytes]]) -> NDArray[Any]:
    """Queries from files whose field is `query`. Raises InvalidInput as `task_of` does."""
    return np.stack(_inputs(model, QUERY, files[QUERY]))


def _inputs(model: Model, name: str, contents: Iterable[bytes]) -> list[NDArray[Any]]:
    return [_input(model, f"/{name}/{number}", content) for number, content in enumerate(contents)]


def _input(model: Model, pointer: str, content: bytes) -> NDArray[Any]:
    shape = tuple(model.input_shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        rule = "a model of pictures, with inputs [1 or 3, height, width]"
        raise InvalidInput(f"{pointer}: needs {rule}, got {list(shape)}", field=pointer, rule=rule, value=model.name)
    task = model.spec.get("task") or {}
    pixels_CHW = _pixels(pointer, content, shape, str(task.get("fit", "squash"))) / np.float32(255)
    if task.get("name") in INK:
        return np.asarray(1 - pixels_CHW, np.float32)
    mean, std = (np.asarray(task.get(name, value), np.float32) for name, value in (("mean", 0.0), ("std", 1.0)))
    return np.asarray((pixels_CHW - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1), np.float32)


def _pixels(pointer: str, content: bytes, shape: tuple[int, ...], fit: str) -> NDArray[Any]:
    rule = f"a PNG or JPEG file of 8 bits a channel and at most {MOST_PIXELS} pixels"
    try:
        return read_picture(io.BytesIO(content), shape, fit, formats=FORMATS, most_pixels=MOST_PIXELS)
    except ValueError as error:
        said = f"{pointer}: is not {rule}: {str(error)[:100]}"
        raise InvalidInput(said, field=pointer, rule=rule, value=f"{len(content)} bytes") from None
