"""Ratings as their publishers ship them. Shape suffixes: N ratings, I items, G genres."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from warploom.errors import DataMissing, InvalidInput, WireError
from warploom.tasks.columns import find, keys, numbers, read_columns
from warploom.tasks.data import ARCHIVES, data_root

# The publisher's order; MovieLens 100K has a flag for "unknown" before these.
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
JESTER_URL = "https://eigentaste.berkeley.edu/dataset/jester_dataset_1_1.zip"
JESTER_FILE, JOKES, NOT_RATED = "jester-data-1.csv", 100, 99.0


class Table(NamedTuple):
    """All ratings of a data set.

    Args:
        user: [N] which of `users`.
        item: [N] which of `items`.
        rating: [N] float64.
        users: names, sorted.
        items: names, sorted.
        genres: [I, G] 0 or 1, or None where the publisher gives none.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    rating: NDArray[np.float64]
    users: list[str]
    items: list[str]
    genres: NDArray[np.float32] | None = None


def read_movielens_100k(root: Path | None = None) -> Table:
    """MovieLens 100K: `u.data` (user, item, rating, time; tabs between) and `u.item` (bars between; ends in 19 flags).

    Raises:
        DataMissing: neither the archive nor the unpacked folder is there.
        WireError: a line is not of the publisher's format.
    """
    return _movielens("ml-100k", ("u.data", "\t"), ("u.item", _flags_100k), root)


def read_movielens_1m(root: Path | None = None) -> Table:
    """MovieLens 1M: `ratings.dat` and `movies.dat`, `::` between fields, bars between genres.

    Raises:
        DataMissing: neither the archive nor the unpacked folder is there.
        WireError: a line is not of the publisher's format.
    """
    return _movielens("ml-1m", ("ratings.dat", "::"), ("movies.dat", _flags_1m), root)


def read_jester(root: Path | None = None) -> Table:
    """Jester 1, first part: a row for each user, with how many jokes they rated and 100 ratings, 99 for none.

    The publisher ships a binary spreadsheet (.xls), which is not read here; save it as CSV with commas.

    Raises:
        DataMissing: no such CSV file.
        WireError: a row is not of the publisher's format.
    """
    folder = (data_root() if root is None else root) / "jester"
    path = folder / JESTER_FILE
    if not path.is_file():
        xls = "jester-data-1.xls is there, but " if (folder / "jester-data-1.xls").is_file() else ""
        raise DataMissing(
            f"Jester is not here: {path} missing; {xls}the publisher's .xls cannot be read by this package. Download "
            f"{JESTER_URL}, open jester-data-1.xls and save it as {JESTER_FILE} (commas between fields, points in "
            "numbers); WARPLOOM_DATA names the data folder",
            field="WARPLOOM_DATA",
            rule=f"holds jester/{JESTER_FILE}",
            value=str(folder.parent),
        )
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.reader(file), 1):
            row = _floats(line)
            if row is None or len(row) != 1 + JOKES:
                _bad_line(path.name, number, f"the number of jokes rated, then {JOKES} ratings", ",".join(line))
            given = [value for value in row[1:] if value != NOT_RATED]
            if len(given) != row[0] or any(not -10 <= value <= 10 for value in given):
                _bad_line(path.name, number, f"{row[0]:g} ratings from -10 to 10, and {NOT_RATED:g} elsewhere", line[0])
            rows.append(row[1:])
    values = np.array(rows, dtype=np.float64).reshape(-1, JOKES)
    user, item = np.nonzero(values != NOT_RATED)
    return _table(path.name, user + 1, item + 1, values[user, item])


def read_table(file: str, user: str, item: str, rating: str, root: Path | None = None) -> Table:
    """Any CSV or Parquet file with a column each for user, item and rating.

    Raises:
        DataMissing: no such file.
        InvalidInput: a column is missing or holds what it should not.
    """
    path = find(file, root)
    columns = read_columns(path, [user, item, rating])
    names = keys(path, user, columns[user]), keys(path, item, columns[item])
    return _table(path.name, *names, numbers(path, rating, columns[rating]).astype(np.float64))


def _movielens(
    name: str,
    ratings: tuple[str, str],
    items: tuple[str, Callable[[str], tuple[str, list[bool]] | None]],
    root: Path | None,
) -> Table:
    """`ratings`: file and separator; `items`: file, and what makes an item's number and flags of its line."""
    file, separator = ratings
    rows = []
    for number, line in enumerate(_lines(name, file, root), 1):
        try:
            user, item, rating, _ = map(int, line.split(separator))
        except ValueError:
            _bad_line(file, number, f"user, item, rating and time, whole numbers with {separator!r} between", line)
        rows.append((user, item, rating))
    if not rows:
        raise WireError(f"{file} has no ratings", field=file)
    listed: dict[str, list[bool]] = {}
    for number, line in enumerate(_lines(name, items[0], root), 1):
        found = items[1](line)
        if found is None:
            _bad_line(items[0], number, "an item's number, its title and its genres", line)
        listed[found[0]] = found[1]
    user_N, item_N, rating_N = np.array(rows, dtype=np.int64).T
    table = _table(file, user_N, item_N, rating_N.astype(np.float64))
    unknown = next((item for item in table.items if item not in listed), None)
    if unknown is not None:
        raise WireError(f"{file} rates item {unknown}, which {items[0]} does not list", field=items[0], value=unknown)
    return table._replace(genres=np.array([listed[item] for item in table.items], dtype=np.float32))


def _flags_100k(line: str) -> tuple[str, list[bool]] | None:
    fields, count = line.split("|"), 1 + len(GENRES)
    sound = len(fields) == 5 + count and fields[0].isdigit() and set(fields[-count:]) <= {"0", "1"}
    return (fields[0], [flag == "1" for flag in fields[-count:]]) if sound else None


def _flags_1m(line: str) -> tuple[str, list[bool]] | None:
    fields = line.split("::")
    sound = len(fields) == 3 and fields[0].isdigit() and set(fields[2].split("|")) <= set(GENRES)
    return (fields[0], [genre in fields[2].split("|") for genre in GENRES]) if sound else None


def _lines(name: str, file: str, root: Path | None) -> Iterator[str]:
    """The lines of a member of a data set, from the unpacked folder or from the archive."""
    above = data_root() if root is None else root
    (archive,) = ARCHIVES[name]
    unpacked = (above / name / file, above / name / name / file)
    packed = (above / name / archive.name, above / archive.name)
    for path in unpacked:
        if path.is_file():
            yield from _text(path.read_bytes())
            return
    for path in packed:
        if path.is_file():
            try:
                with zipfile.ZipFile(path) as members:
                    content = members.read(f"{name}/{file}")
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                raise WireError(f"{path} cannot be read ({error}); fetch it anew from {archive.url}") from error
            yield from _text(content)
            return
    raise DataMissing(
        f"{name} is not here: neither {unpacked[0]} nor {packed[0]} is there. Run `warploom data fetch {name}`, or "
        f"download {archive.url} (MD5 {archive.md5}) and put it, packed or unpacked, into {above / name}; "
        "WARPLOOM_DATA names the data folder",
        field="WARPLOOM_DATA",
        rule=f"holds {name}/{archive.name} or {name}/{file}",
        value=str(above),
    )


def _text(content: bytes) -> Iterator[str]:
    for line in io.StringIO(content.decode("latin-1"), newline=None):
        if line.strip():
            yield line.rstrip("\n")


def _bad_line(file: str, number: int, expected: str, line: str) -> NoReturn:
    raise WireError(f"{file}, line {number}: expected {expected}; got {line[:100]!r}", field=file, value=line[:100])


def _floats(fields: Sequence[str]) -> list[float] | None:
    try:
        return [float(field) for field in fields]
    except ValueError:
        return None


def _table(file: str, user: NDArray[Any], item: NDArray[Any], rating: NDArray[np.float64]) -> Table:
    """Names to numbers; an item that a user rated twice would put one rating on both sides of a split."""
    users, user_N = np.unique(user, return_inverse=True)
    items, item_N = np.unique(item, return_inverse=True)
    _, first, count = np.unique(user_N * len(items) + item_N, return_index=True, return_counts=True)
    if (count > 1).any():
        at = int(first[count > 1].min())
        raise InvalidInput(
            f"{file}: user {user[at]} rates item {item[at]} more than once (first in row {at + 1})",
            field="/task/file",
            rule="one rating for each user and item",
            value=str(item[at]),
        )
    return Table(user_N, item_N, rating, [str(u) for u in users.tolist()], [str(i) for i in items.tolist()])
