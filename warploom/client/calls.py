"""Requests as values: what to ask for, how to read the answer, whether a repeat does harm. Nothing here talks."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from warploom.errors import InvalidInput, WireError

T_co = TypeVar("T_co", covariant=True)
RecordT = TypeVar("RecordT", bound=BaseModel)
Record_co = TypeVar("Record_co", bound=BaseModel, covariant=True)
IDEMPOTENCY_KEY = "Idempotency-Key"
NPZ = {"Content-Type": "application/x-npz"}


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T_co]):
    """One request.

    Args:
        method, path: what to ask for; the path is complete and quoted.
        read: makes the result of a successful answer.
        options: what `httpx.Client.build_request` takes besides (`params`, `json`, `content`, `headers`, `files`).
        safe: a repeat does no harm.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T_co]
    options: Mapping[str, Any] = field(default_factory=dict)
    safe: bool = False

    @property
    def has_key(self) -> bool:
        """Whether it carries an idempotency key."""
        return IDEMPOTENCY_KEY in self.options.get("headers", {})


def get(path: str, kind: type[RecordT], **params: Any) -> Call[RecordT]:
    """Read a record."""
    return Call(method="GET", path=path, read=record(kind), options={"params": given(**params)}, safe=True)


def post(path: str, kind: type[RecordT], *, safe: bool = False, **options: Any) -> Call[RecordT]:
    """Ask for a change, or for work."""
    return Call(method="POST", path=path, read=record(kind), options=options, safe=safe)


def create(path: str, kind: type[RecordT], body: Any, key: str | None, **params: Any) -> Call[RecordT]:
    """Make something once: under an idempotency key, so that a repeat answers with what is there."""
    headers = {IDEMPOTENCY_KEY: key or uuid.uuid4().hex}
    options = {"json": document(body), "headers": headers, "params": given(**params)}
    return Call(method="POST", path=path, read=record(kind), options=options, safe=True)


def patch(path: str, kind: type[RecordT], body: Mapping[str, Any]) -> Call[RecordT]:
    """Change some fields; a repeat changes nothing."""
    return Call(method="PATCH", path=path, read=record(kind), options={"json": dict(body)}, safe=True)


def put(path: str, kind: type[RecordT], body: Mapping[str, Any]) -> Call[RecordT]:
    """Set something; a repeat changes nothing."""
    return Call(method="PUT", path=path, read=record(kind), options={"json": dict(body)}, safe=True)


def delete(path: str) -> Call[None]:
    """Remove something; a repeat changes nothing."""
    return Call(method="DELETE", path=path, read=lambda _: None, safe=True)


def plain(path: str, **params: Any) -> Call[dict[str, Any]]:
    """Read a JSON object as it is."""
    return Call(method="GET", path=path, read=_object, options={"params": given(**params)}, safe=True)


def content(path: str, what: str, **params: Any) -> Call[bytes]:
    """Download bytes, checked against the checksum that the service states."""

    def read(answer: httpx.Response) -> bytes:
        expected = answer.headers.get("X-Content-SHA256")
        if expected and hashlib.sha256(answer.content).hexdigest() != expected:
            raise WireError(f"{what} does not have the checksum that the service states")
        return answer.content

    return Call(method="GET", path=path, read=read, options={"params": given(**params)}, safe=True)


def record(kind: type[RecordT]) -> Callable[[httpx.Response], RecordT]:
    """A reader of answers of this kind."""

    def read(answer: httpx.Response) -> RecordT:
        try:
            return kind.model_validate_json(answer.content)
        except ValueError:
            raise _foreign(answer) from None

    return read


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        raise _foreign(answer) from None
    if not isinstance(found, dict):
        raise _foreign(answer)
    return found


def _foreign(answer: httpx.Response) -> WireError:
    return WireError(f"the answer from {answer.url} is not what a Warploom service says")


def document(body: Any) -> Any:
    """A spec, or a mapping, as JSON."""
    if not isinstance(body, BaseModel):
        return dict(body)
    # A spec leaves its metadata out of its own form, because that can change and the spec cannot.
    metadata = getattr(body, "metadata", None)
    return body.model_dump(mode="json") | ({"metadata": metadata} if metadata else {})


class Lister(Protocol[Record_co]):
    """A listing by time, state and metadata."""

    __name__: str

    def __call__(
        self,
        limit: int = 20,
        after: str | None = None,
        state: str | None = None,
        order: str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Call[Record_co]:
        """One page."""
        ...


def lister(path: str, page: type[RecordT], what: str) -> Lister[RecordT]:
    """The plan of a listing.

    Args:
        path: of the list.
        page: how a page is read.
        what: first word of its docstring.
    """

    def listing(
        limit: int = 20,
        after: str | None = None,
        state: str | None = None,
        order: str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Call[RecordT]:
        times = {"created_after": created_after, "created_before": created_before}
        return get(path, page, **filters(metadata, limit=limit, after=after, state=state, order=order, **times))

    listing.__doc__ = f"""{what}, newest first unless `order` is `asc`.

    Args:
        limit: most entries of one page.
        after: the last id of the page before.
        state: only those in this state.
        order: `asc` or `desc`.
        created_after, created_before: seconds since the epoch.
        metadata: only those that have all of these pairs.
    """
    return listing


def filters(metadata: Mapping[str, str] | None, **params: Any) -> dict[str, Any]:
    """Parameters of a list, with its metadata filter written as `metadata[name]=value`."""
    return given(**params) | {f"metadata[{name}]": value for name, value in (metadata or {}).items()}


def given(**params: Any) -> dict[str, Any]:
    """The parameters that are not None."""
    return {name: value for name, value in params.items() if value is not None}


def part(name: str) -> str:
    """A name as one part of a path.

    Raises:
        InvalidInput: it is empty, or `.` or `..`, which URL rules resolve away and so reach another route.
    """
    if name in {"", ".", ".."}:
        raise InvalidInput(f"not a name: {name!r}", field="/name", rule="at least one letter", value=name)
    return quote(name, safe="")


def npz(arrays: Mapping[str, ArrayLike | None]) -> bytes:
    """Arrays as an npz file; None is left out.

    Raises:
        InvalidInput: something is no array of numbers.
    """
    file = io.BytesIO()
    known = {name: numbers(name, value) for name, value in arrays.items() if value is not None}
    np.savez(file, **known)  # type: ignore[arg-type]
    return file.getvalue()


def numbers(name: str, value: ArrayLike) -> NDArray[Any]:
    """An array of numbers. Raises InvalidInput."""
    # Refused here because numpy would store anything else as a pickle.
    try:
        array = np.asarray(value)
        found = f"dtype {array.dtype}"
    except ValueError as error:
        array, found = np.empty(0, object), str(error)
    if array.dtype.kind in "biuf":
        return array
    raise InvalidInput(
        f"{name} must hold numbers, in rows of equal length; got {found}",
        field=f"/{name.replace('_', '/')}",
        rule="an array of numbers",
        value=str(array.dtype),
    )
