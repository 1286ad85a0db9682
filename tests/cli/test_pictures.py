"""Folders of pictures: which number a class gets, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from warploom.cli.pictures import classes_in, files_of
from warploom.errors import InvalidInput


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_classes_are_in_the_order_of_numbers_then_names(tmp_path: Path) -> None:
    put(tmp_path, "10/a.png", "2/b.JPG", "2/a.jpeg", "dog/a.png", "cat/a.png", ".git/x", "2/.DS_Store", "notes.txt")
    found = classes_in(tmp_path)
    assert list(found) == ["2", "10", "cat", "dog"]
    assert [path.name for path in found["2"]] == ["a.jpeg", "b.JPG"]
    assert files_of(tmp_path / "10") == [tmp_path / "10" / "a.png"]


@pytest.mark.parametrize(
    ("names", "says"),
    [(["a.png"], "for each class"), (["cat/a.gif"], "a.gif"), (["cat/.hidden"], "no pictures"), ([], "for each class")],
)
def test_what_is_no_such_folder_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        classes_in(put(tmp_path, *names))
    with pytest.raises(InvalidInput, match="cannot read"):
        classes_in(tmp_path / "none")
