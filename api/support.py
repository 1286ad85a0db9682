"""Checks of a support set and of queries against the model that they are for, before anything is queued.

A refusal names the first row at fault, because the caller has hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from warploom.errors import InvalidInput
from warploom.records import Model

Array = NDArray[Any]
NUMBERS = "iuf"


class Support(NamedTuple):
    """A support set and queries that fit the model."""

    x: Array
    y: Array
    query_x: Array | None


def check(model: Model, x: Any, y: Any, query_x: Any, *, max_rows: int) -> Support:
    """The task in the model's shape: float32 inputs, int64 labels or float32 targets.

    Args:
        model: what it is for.
        x: [S, *input], arrays or nested lists; the channel may be left out when there is one.
        y: [S] class numbers, or [S, outputs] targets.
        query_x: like `x`, or None.
        max_rows: most rows of either.

    Raises:
        InvalidInput: the first thing that is wrong, with its pointer.
    """
    support_x = inputs(model, x, "/support/x", max_rows)
    support_y = _labels(model, y) if model.kind == "classification" else _targets(model, y)
    if len(support_x) != len(support_y):
        raise InvalidInput(
            f"/support: x has {len(support_x)} rows and y has {len(support_y)}",
            field="/support/y",
            rule=f"as many rows as x: {len(support_x)}",
            value=len(support_y),
        )
    if model.kind == "classification":
        _all_present(model, support_y)
    queries = None if query_x is None else inputs(model, query_x, "/query/x", max_rows)
    return Support(support_x, support_y, queries)


def inputs(model: Model, value: Any, pointer: str, max_rows: int) -> Array:
    """Inputs [R, *input] for `model` as float32. Raises InvalidInput."""
    array = _numbers(value, pointer)
    _count(array, pointer, max_rows)
    shape = tuple(model.input_shape)
    if shape[:1] == (1,) and array.shape[1:] == shape[1:]:
        array = array.reshape(len(array), *shape)
    if array.shape[1:] != shape:
        wanted = f"[rows, {', '.join(map(str, shape))}]"
        raise InvalidInput(
            f"{pointer}: has shape {list(array.shape)}, model {model.name!r} takes {wanted}",
            field=pointer,
            rule=f"shape {wanted}",
            value=str(list(array.shape)),
        )
    return _finite(array, pointer)


def _targets(model: Model, value: Any) -> Array:
    array = _numbers(value, "/support/y")
    _count(array, "/support/y", None)
    if array.ndim == 1 and model.outputs == 1:
        array = array[:, None]
    if array.shape[1:] != (model.outputs,):
        raise InvalidInput(
            f"/support/y: has shape {list(array.shape)}, model {model.name!r} wants [rows, {model.outputs}]",
            field="/support/y",
            rule=f"shape [rows, {model.outputs}]",
            value=str(list(array.shape)),
        )
    return _finite(array, "/support/y")


def _labels(model: Model, value: Any) -> Array:
    array = _numbers(value, "/support/y")
    _count(array, "/support/y", None)
    rule = f"a whole number from 0 to {model.outputs - 1}"
    if array.ndim != 1:
        raise InvalidInput(
            f"/support/y: must be one class number for each row, got shape {list(array.shape)}",
            field="/support/y",
            rule="shape [rows]",
            value=str(list(array.shape)),
        )
    # NaN compares false with everything and so is caught here too.
    good = (array >= 0) & (array < model.outputs) & (array == np.floor(array))
    if not good.all():
        row = int(np.argmin(good))
        raise _bad_row(f"/support/y/{row}", f"must be {rule}", rule, array[row].item())
    return array.astype(np.int64)


def _all_present(model: Model, labels: Array) -> None:
    missing = np.setdiff1d(np.arange(model.outputs), labels)
    if len(missing) == 0:
        return
    names = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
    what = f"class {names} is missing" if len(missing) == 1 else f"classes {names} are missing"
    raise InvalidInput(
        f"/support/y: {what}; model {model.name!r} has {model.outputs} classes, each needs an example",
        field="/support/y",
        rule=f"every class from 0 to {model.outputs - 1} at least once",
        value=f"without {names}",
    )


def _numbers(value: Any, pointer: str) -> Array:
    array = _try(value)
    if array is None:
        raise _culprit(value, pointer)
    if array.ndim == 0:
        raise InvalidInput(f"{pointer}: must be an array", field=pointer, rule="an array", value=str(value)[:50])
    return array


def _try(value: Any) -> Array | None:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        return None
    # An empty list has no kind of its own; its length is refused later.
    return array if array.dtype.kind in NUMBERS else None


def _culprit(value: Any, pointer: str) -> InvalidInput:
    rule = "numbers, in rows of equal length"
    rows: Sequence[Any] = value if isinstance(value, list) else ()
    first = None
    for number, row in enumerate(rows):
        array = _try(row)
        if array is None:
            shown = row if isinstance(row, str | bool | None) else type(row).__name__
            return _bad_row(f"{pointer}/{number}", "must hold numbers only", rule, shown)
        first = array.shape if first is None else first
        if array.shape != first:
            message = f"has shape {list(array.shape)}, the rows before have {list(first)}"
            return _bad_row(f"{pointer}/{number}", message, rule, str(list(array.shape)))
    found = str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
    return InvalidInput(f"{pointer}: must be an array of numbers", field=pointer, rule=rule, value=found)


def _count(array: Array, pointer: str, max_rows: int | None) -> None:
    if len(array) == 0:
        raise InvalidInput(f"{pointer}: has no rows", field=pointer, rule="at least one row", value=0)
    if max_rows is not None and len(array) > max_rows:
        rule = f"at most {max_rows} rows"
        message = f"{pointer}: has {len(array)} rows; {rule} are accepted"
        raise InvalidInput(message, field=pointer, rule=rule, value=len(array))


def _finite(array: Array, pointer: str) -> Array:
    with np.errstate(over="ignore"):
        plain = array.astype(np.float32)
    good = np.isfinite(plain).reshape(len(plain), -1)
    if not good.all():
        row = int(np.argmin(good.all(axis=1)))
        value = array.reshape(len(plain), -1)[row][int(np.argmin(good[row]))].item()
        raise _bad_row(f"{pointer}/{row}", "must be finite", "a finite float32 number", value)
    return plain


def _bad_row(pointer: str, message: str, rule: str, value: Any) -> InvalidInput:
    return InvalidInput(f"{pointer}: {message}, got {value}", field=pointer, rule=rule, value=value)
