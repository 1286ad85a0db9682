"""Bodies of the adaptation routes: JSON with nested lists, or npz with arrays and options in the query."""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from api.deps import JSON, content_type, unsupported
from api.errors import of_pydantic
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
    lr: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=0, lt=2**31)
    version: int | None = Field(None, ge=1)


class AdaptBody(Options):
    """A request to adapt."""

    support: SupportBody
    query: QueryBody | None = None


class PredictBody(Closed):
    """A request to predict with a model that was adapted before."""

    query: QueryBody


class AdaptInput(NamedTuple):
    """A request to adapt, from either form, not yet checked against the model; `size` of its body in bytes."""

    x: Any
    y: Any
    query_x: Any
    options: Options
    size: int


class QueryInput(NamedTuple):
    """Queries, not yet checked against the model, and the size of the body that they came in (bytes)."""

    x: Any
    size: int


async def adapt_input(request: Request, max_bytes: int) -> AdaptInput:
    """The body of an adapt request.

    Raises:
        UnsupportedMediaType: neither JSON nor npz.
        InvalidInput: it cannot be read.
    """
    kind, body = _media(request), await request.body()
    if kind == JSON:
        return _adapt_json(body) if len(body) <= SMALL_BYTES else await run_in_threadpool(_adapt_json, body)
    return await run_in_threadpool(_adapt_npz, body, dict(request.query_params), max_bytes)


async def predict_input(request: Request, max_bytes: int) -> QueryInput:
    """The queries in the body of a predict request. Raises as `adapt_input` does."""
    kind, body = _media(request), await request.body()
    if kind == JSON:
        return QueryInput((await run_in_threadpool(_parse, PredictBody, body)).query.x, len(body))
    arrays = await run_in_threadpool(_unpack, body, max_bytes)
    return QueryInput(_named(arrays, "/query/x", "query_x", "x"), len(body))


def _media(request: Request) -> str:
    kind = content_type(request)
    if kind != JSON and kind not in NPZ:
        raise unsupported(kind, JSON, *NPZ)
    return kind


def _adapt_json(body: bytes) -> AdaptInput:
    parsed = _parse(AdaptBody, body)
    query = None if parsed.query is None else parsed.query.x
    return AdaptInput(parsed.support.x, parsed.support.y, query, parsed, len(body))


def _adapt_npz(body: bytes, query: dict[str, str], max_bytes: int) -> AdaptInput:
    try:
        options = Options.model_validate(query)
    except ValidationError as error:
        raise of_pydantic(error.errors(include_url=False)) from None
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
