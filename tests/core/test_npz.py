"""npz files from strangers: bombs, pickles and other tricks are refused before they cost anything."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest

from warploom.errors import WireError
from warploom.wire import MOST_ARRAYS, read_npz

BUDGET = 1_000_000


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


class Exploit:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was read",)


def refused(blob: bytes, match: str | None = None) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match=match):
            read_npz(blob, max_bytes=BUDGET)
        assert tracemalloc.get_traced_memory()[1] < 4 * BUDGET + 3 * len(blob)
    finally:
        tracemalloc.stop()


def test_arrays_of_every_layout_come_back() -> None:
    arrays = {
        "rows": np.arange(12, dtype=np.float32).reshape(3, 4), "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.zeros((0, 5)), "scalar": np.array(3, np.int16), "flags": np.array([True, False]),
        "big_endian": np.arange(3, dtype=">i4"),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)  # type: ignore[arg-type]
        found = read_npz(file.getvalue(), max_bytes=BUDGET)
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert np.array_equal(found[name], array) and found[name].dtype == array.dtype


def test_a_pickle_is_not_read() -> None:
    refused(zipped(("x.npy", npy(np.array([Exploit()], object), allow_pickle=True))), "not numbers")
    refused(zipped(("x.npy", header("(1,)", "'|O'") + pickle.dumps(Exploit()))), "not numbers")
    refused(zipped(("x.pkl", pickle.dumps(Exploit()))), "named")
    refused(pickle.dumps(Exploit()))


@pytest.mark.parametrize("descr", ["'<M8[s]'", "'<m8[s]'", "[('a', '<f4')]", "[('a', '|O')]", "'|V4'"])
def test_only_numbers_are_read(descr: str) -> None:
    refused(zipped(("x.npy", header("(1,)", descr) + b"\0" * 8)))


def test_a_bomb_is_refused_by_its_own_table() -> None:
    bomb = zipped(("x.npy", npy(np.zeros(50 * BUDGET, np.uint8))))
    assert len(bomb) < BUDGET / 10
    refused(bomb, "unpacks to")
    refused(zipped(*((f"x{i}.npy", npy(np.zeros(BUDGET // 4, np.uint8))) for i in range(8))), "unpacks to")


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    blob = bytearray(zipped(("x.npy", npy(np.zeros(50 * BUDGET, np.uint8)))))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", blob, blob.index(signature) + offset, 1000)
    refused(bytes(blob))


def test_overlapping_members_count_each() -> None:
    """One packed stream, named by many entries of the table."""
    inner = npy(np.zeros(BUDGET // 2, np.uint8))
    blob = zipped(("x.npy", inner))
    start, end = blob.index(b"PK\x01\x02"), blob.index(b"PK\x05\x06")
    entry = blob[start:end]
    table = b"".join(entry.replace(b"x.npy", b"%c.npy" % (97 + i)) for i in range(20))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 20, 20, len(table), start, 0)
    refused(blob[:start] + table + tail, "unpacks to")


def test_a_header_that_promises_too_much_makes_no_array() -> None:
    for shape in ("(10**12,)", "(1000000000000,)", "(2**62, 2)", "(-1,)", "(3,)", "(1e9,)", "'x'"):
        refused(zipped(("x.npy", header(shape) + b"\0" * 8)))


def test_too_many_members_are_refused() -> None:
    refused(zipped(*((f"x{i}.npy", b"") for i in range(MOST_ARRAYS + 1))), "members")
    refused(zipped(*((f"x{i}.npy", b"") for i in range(101 * MOST_ARRAYS))), "too many")


@pytest.mark.parametrize(
    "name", ["../x.npy", "/x.npy", "a/b.npy", "x.npy\n", "x", "..npy", "é.npy", "x" * 200 + ".npy"]
)
def test_only_plain_names(name: str) -> None:
    refused(zipped((name, npy(np.ones(2)))), "named")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_each_name_once() -> None:
    refused(zipped(("x.npy", npy(np.ones(2))), ("x.npy", npy(np.zeros(2)))), "named")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_odd_compressions_are_refused(compression: int) -> None:
    refused(zipped(("x.npy", npy(np.ones(2))), compression=compression), "odd way")


def test_damage_is_refused() -> None:
    blob = zipped(("x.npy", npy(np.arange(1000))))
    for cut in range(0, len(blob), 97):
        refused(blob[:cut])
    for place in range(0, len(blob), 61):
        changed = bytearray(blob)
        changed[place] ^= 0xFF
        try:
            read_npz(bytes(changed), max_bytes=BUDGET)
        except WireError:
            continue
