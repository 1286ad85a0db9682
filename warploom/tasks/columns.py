"""Named columns of one file of the user's: npz, Parquet or CSV. Every refusal names file, column and row.

Rows count from 1, without the header of a CSV file. Shape suffix: N rows.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from warploom.errors import DataMissing, InvalidInput, SetupError, WireError
from warploom.tasks.data import data_root

Array = NDArray[Any]
Columns = dict[str, Array]


def refuse(
    path: Path, what: str, *, column: str | None = None, row: int | None = None, value: str | float | None = None
) -> NoReturn:
    """Raise InvalidInput about a place in a file."""
    place = "".join([f", column {column!r}" if column else "", f", row {row}" if row else ""])
    got = "" if value is None else f", got {value!r}"
    raise InvalidInput(f"{path.name}{place}: {what}{got}", field="/task/file", rule=what, value=value)


def find(file: str, root: Path | None = None) -> Path:
    """Where `file` lies under the data folder.

    Raises:
        DataMissing: it is not there.
    """
    folder = data_root() if root is None else root
    path = folder / file
    if not path.is_file():
        raise DataMissing(
            f"{file} is not under the data folder {folder}; put it there, or set WARPLOOM_DATA to the folder it is in",
            field="/task/file",
            rule="a file under the data folder",
            value=file,
        )
    return path


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """The named columns, all of N rows: numbers [N, ...], or text [N].

    Args:
        path: ends in .npz, .parquet or .csv (with a header).
        names: what to read; the rest of the file is left alone.

    Raises:
        WireError: the file is not what its name says.
        InvalidInput: a column is missing, has another length, an empty place, or values that are neither numbers nor
            text.
        SetupError: a Parquet file, and no pyarrow.
    """
    readers = {".npz": _npz, ".parquet": _parquet, ".csv": _csv}
    columns = readers[path.suffix.lower()](path, list(dict.fromkeys(names)))
    rows = {name: len(column) for name, column in columns.items()}
    if len(set(rows.values())) > 1:
        refuse(path, f"columns differ in length: {', '.join(f'{name!r} has {n} rows' for name, n in rows.items())}")
    if 0 in rows.values():
        refuse(path, "has no rows")
    return columns


def numbers(path: Path, name: str, column: Array) -> NDArray[np.float32]:
    """The column as finite float32.

    Raises:
        InvalidInput: text, or a number that is not finite (in float32).
    """
    if column.dtype.kind == "U":
        row = next((i for i, text in enumerate(column.ravel().tolist()) if not _is_number(text)), None)
        if row is not None:
            refuse(path, "must be a number", column=name, row=row + 1, value=str(column.ravel()[row]))
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = column.astype(np.float32)
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        refuse(path, "must be finite float32 numbers", column=name, row=row + 1, value=str(column[row]))
    return values


def keys(path: Path, name: str, column: Array) -> Array:
    """The column as labels: text or whole numbers, [N].

    Raises:
        InvalidInput: fractions, NaN, or more than one number in a row.
    """
    if column.ndim != 1:
        refuse(path, f"must hold one value in each row, not shape {column.shape[1:]}", column=name)
    if column.dtype.kind != "f":
        return column.astype(np.int64) if column.dtype.kind == "b" else column
    bad = column != np.floor(column)  # NaN differs from itself
    bad |= ~np.isfinite(column)
    if bad.any():
        row = int(bad.argmax())
        refuse(path, "must be text or a whole number", column=name, row=row + 1, value=float(column[row]))
    return column.astype(np.int64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lacking(path: Path, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            refuse(path, f"is not there; the file has: {', '.join(map(repr, known)) or 'nothing'}", column=name)


def _npz(path: Path, names: Sequence[str]) -> Columns:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            _lacking(path, names, list(arrays.files))
            columns = {name: _read_member(path, arrays, name) for name in names}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, TypeError, AttributeError) as error:
        raise WireError(f"{path.name} is not an npz file of plain arrays: {error}", field="/task/file") from error
    for name, column in columns.items():
        if column.ndim == 0:
            refuse(path, "must have a row for each example, and is a single value", column=name)
    return columns


def _read_member(path: Path, arrays: Any, name: str) -> Array:
    try:
        column: Array = arrays[name]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        refuse(path, "holds Python objects, which are not read; save numbers or fixed-width text", column=name)
    if column.dtype.kind not in "biufU":
        refuse(path, f"must be numbers or text, not {column.dtype}", column=name)
    return column


def _csv(path: Path, names: Sequence[str]) -> Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            _lacking(path, names, header)
            places = [header.index(name) for name in names]
            found: list[list[str]] = [[] for _ in names]
            for row, line in enumerate((line for line in lines if line), 1):
                if len(line) != len(header):
                    refuse(path, f"has {len(line)} fields, the header {len(header)}", row=row)
                for column, name, place in zip(found, names, places, strict=True):
                    if line[place] == "":
                        refuse(path, "is empty", column=name, row=row)
                    column.append(line[place])
    except (UnicodeDecodeError, csv.Error) as error:
        raise WireError(f"{path.name} is not a CSV file in UTF-8: {error}", field="/task/file") from error
    return {name: np.array(column, dtype=np.str_) for name, column in zip(names, found, strict=True)}


def _parquet(path: Path, names: Sequence[str]) -> Columns:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise SetupError(
            f"reading {path.name} needs pyarrow: pip install 'warploom[parquet]', or save the table as another format",
            field="/task/file",
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            _lacking(path, names, file.schema_arrow.names)
            table = file.read(columns=list(names))
    except (OSError, arrow.ArrowException) as error:
        raise WireError(f"{path.name} is not a Parquet file: {error}", field="/task/file") from error
    return {name: _arrow(path, name, table.column(name).combine_chunks(), arrow) for name in names}


def _arrow(path: Path, name: str, column: Any, arrow: Any) -> Array:
    """A column of numbers, text, or (nested) lists of numbers that are all of one length."""
    shape, row_size = [len(column)], 1
    kinds = arrow.types
    while any(is_kind(column.type) for is_kind in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)):
        _no_nulls(path, name, column, row_size)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        odd = lengths != lengths[0] if len(lengths) else lengths
        if len(lengths) and odd.any():
            row = int(odd.argmax()) // row_size + 1
            refuse(path, f"holds {lengths[odd][0]} values where row 1 holds {lengths[0]}", column=name, row=row)
        size = int(lengths[0]) if len(lengths) else 0
        shape, row_size, column = [*shape, size], row_size * max(size, 1), column.flatten()
    _no_nulls(path, name, column, row_size)
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kinds.is_string(column.type) or kinds.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_).reshape(shape)
    if kinds.is_integer(column.type) or kinds.is_floating(column.type) or kinds.is_boolean(column.type):
        plain: Array = column.to_numpy(zero_copy_only=False)
        return plain.reshape(shape)
    refuse(path, f"must be numbers or text, not {column.type}", column=name)


def _no_nulls(path: Path, name: str, column: Any, row_size: int) -> None:
    if column.null_count:
        first = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        refuse(path, "is empty", column=name, row=first // row_size + 1)
