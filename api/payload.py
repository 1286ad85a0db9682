"""Bodies of the adaptation routes: JSON with nested lists, npz with options in the query, or forms with pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from api.deps import JSON, content_type, unsupported
from api.errors import of_pydantic
from api.pictures import MULTIPART, QUERY, uploaded
from warploom.errors import InvalidInput, WireError
from warploom.wire import read_npz

BodyT = TypeVar("BodyT", bound=BaseModel)
NPZ = ("application/x-npz", "application/octet-stream")
# What an npz may unpack to, as a multiple of the largest body: images compress well, bombs compress better.
UNPACKED = 4
# Up to here a body is read and checked on the event loop, in less time than a change of thread takes.
SMALL_BYTES = 2**14


class Closed(BaseModel):
    """A body without unknown fields and with finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SupportBody(Closed):
    """The task's labelled examples."""

    x: list[Any] = Field(description="inputs, [S, *input_shape] as nested lists")
    y: list[Any] = Field(description="class numbers [S], or targets [S, outputs]")


class QueryBody(Closed):
    """Inputs to predict."""

    x: list[Any] = Field(description="inputs, [Q, *input_shape] as nested lists")


class Options(Closed):
    """How to adapt; what is left out is the model's own choice."""

    steps: int | None = Field(None, ge=0)
    lr: float | None = Field(None, gt=0, le=100)
    seed: int | None = Field(None, ge=0, lt=2**31)
    version: int | None = Field(None, ge=1)


class TaskBody(Closed):
    """One task of several."""

    support: SupportBody
    query: QueryBody | None = None
    seed: int | None = Field(None, ge=0, lt=2**31, description="default: that of the whole call")


class AdaptBody(Options):
    """A request to adapt: to one task, or to several, each by itself."""

    support: SupportBody | None = Field(None, description="of one task")
    query: QueryBody | None = None
    tasks: list[TaskBody] | None = Field(None, min_length=1, description="in place of support and query")


class PredictBody(Closed):
    """A request to predict with a model that was adapted before."""

    query: QueryBody


class AdaptInput(NamedTuple):
    """A request to adapt, from any form, not yet checked against the model.

    Args:
        x, y, query_x: as sent; empty where there are files.
        options: how to adapt.
        size: of the body, in bytes.
        files: picture files by the name of their field.
    """

    x: Any
    y: Any
    query_x: Any
    options: Options
    size: int
    files: Mapping[str, list[bytes]] | None = None


class QueryInput(NamedTuple):
    """Queries, from any form, not yet checked against the model.

    Args:
        x: as sent; empty where there are files.
        size: of the body, in bytes.
        files: picture files by the name of their field, which is `query`.
    """

    x: Any
    size: int
    files: Mapping[str, list[bytes]] | None = None


async def adapt_input(request: Request, max_bytes: int) -> AdaptInput | list[AdaptInput]:
    """The body of an adapt request: one task, or several.

    Raises:
        UnsupportedMediaType: neither JSON nor npz nor a form.
        InvalidInput: it cannot be read.
    """
    kind = _media(request, JSON, *NPZ, MULTIPART)
    if kind == MULTIPART:
        files, fields = await uploaded(request)
        return AdaptInput((), (), None, _options(fields), _picture_bytes(files), files)
    body = await request.body()
    if kind == JSON:
        return _adapt_json(body) if len(body) <= SMALL_BYTES else await run_in_threadpool(_adapt_json, body)
    return await run_in_threadpool(_adapt_npz, body, dict(request.query_params), max_bytes)


async def predict_input(request: Request, max_bytes: int) -> QueryInput:
    """The queries in the body of a predict request. Raises as `adapt_input` does."""
    kind = _media(request, JSON, *NPZ, MULTIPART)
    if kind == MULTIPART:
        files, fields = await uploaded(request)
        for name in (*fields, *files):
            if name != QUERY or name in fields:
                rule = f"files in fields named {QUERY}"
                raise InvalidInput(f"/{name[:50]}: only {rule}", field=f"/{name[:50]}", rule=rule)
        if not files:
            raise InvalidInput(f"/{QUERY}: at least one file", field=f"/{QUERY}", rule="at least one file", value=0)
        return QueryInput((), _picture_bytes(files), files)
    body = await request.body()
    if kind == JSON:
        return QueryInput((await run_in_threadpool(_parse, PredictBody, body)).query.x, len(body))
    arrays = await run_in_threadpool(_unpack, body, max_bytes)
    return QueryInput(_named(arrays, "/query/x", "query_x", "x"), len(body))


def _picture_bytes(files: Mapping[str, list[bytes]]) -> int:
    """The size that stands for decoding them, which never is small work."""
    return max(sum(len(content) for contents in files.values() for content in contents), SMALL_BYTES + 1)


def _media(request: Request, *accepted: str) -> str:
    kind = content_type(request)
    if kind not in accepted:
        raise unsupported(kind, *accepted)
    return kind


def _adapt_json(body: bytes) -> AdaptInput | list[AdaptInput]:
    parsed = _parse(AdaptBody, body)
    if parsed.tasks is None and parsed.support is not None:
        return _task(TaskBody(support=parsed.support, query=parsed.query), parsed, len(body))
    if parsed.tasks is None or parsed.support is not None or parsed.query is not None:
        field, rule = ("/tasks", "tasks without support and query") if parsed.tasks else ("/support", "required")
        raise InvalidInput(f"{field}: {rule}", field=field, rule=rule)
    return [_task(task, parsed, len(body) // len(parsed.tasks)) for task in parsed.tasks]


def _task(task: TaskBody, body: AdaptBody, size: int) -> AdaptInput:
    options = body if task.seed is None else body.model_copy(update={"seed": task.seed})
    return AdaptInput(task.support.x, task.support.y, None if task.query is None else task.query.x, options, size)


def _options(fields: Mapping[str, str]) -> Options:
    try:
        return Options.model_validate(fields)
    except ValidationError as error:
        raise of_pydantic(error.errors(include_url=False)) from None


def _adapt_npz(body: bytes, query: dict[str, str], max_bytes: int) -> AdaptInput:
    options = _options(query)
    arrays = _unpack(body, max_bytes)
    x = _named(arrays, "/support/x", "support_x", "x")
    y = _named(arrays, "/support/y", "support_y", "y")
    return AdaptInput(x, y, arrays.get("query_x"), options, len(body))


def _parse(kind: type[BodyT], body: bytes) -> BodyT:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise of_pydantic(error.errors(include_url=False)) from None


def _unpack(body: bytes, max_bytes: int) -> dict[str, Any]:
    try:
        return read_npz(body, max_bytes=UNPACKED * max_bytes)
    except (MemoryError, NotImplementedError, RuntimeError, struct.error, zlib.error) as error:
        # Damaged or encrypted archives, and headers that promise more than there is.
        raise WireError(f"not a readable npz file: {error}") from None


def _named(arrays: dict[str, Any], pointer: str, *names: str) -> Any:
    for name in names:
        if name in arrays:
            return arrays[name]
    found = ", ".join(sorted(arrays)) or "nothing"
    raise InvalidInput(
        f"{pointer}: the npz file has no array {names[0]!r}; it holds {found}",
        field=pointer,
        rule=f"an array named {names[0]}",
        value=found,
    )
