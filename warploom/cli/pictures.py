"""Folders of pictures on this machine."""

from __future__ import annotations

from pathlib import Path

from warploom.errors import InvalidInput

SUFFIXES = (".png", ".jpg", ".jpeg")


def classes_in(folder: Path) -> dict[str, list[Path]]:
    """The picture files of each class by its folder's name, in the order of names, numbers by their value.

    Raises:
        InvalidInput: there are no class folders, or something in them is not PNG or JPEG.
    """
    found = sorted((each for each in _seen(folder) if each.is_dir()), key=_rank)
    if not found:
        rule = "a folder of PNG or JPEG files for each class"
        raise InvalidInput(f"{folder} holds no {rule}", rule=rule, value=str(folder))
    return {each.name: files_of(each) for each in found}


def files_of(path: Path) -> list[Path]:
    """A picture file, or all that a folder holds, by name. Raises InvalidInput."""
    found = _seen(path) if path.is_dir() else [path]
    for each in found:
        if each.suffix.lower() not in SUFFIXES:
            rule = f"a file {', '.join(SUFFIXES)}"
            raise InvalidInput(f"{each} is not {rule}", rule=rule, value=each.name)
    if not found:
        raise InvalidInput(f"{path} holds no pictures", rule="at least one picture", value=str(path))
    return found


def _seen(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith((".", "__")))
    except OSError as error:
        raise InvalidInput(f"cannot read {folder}: {error.strerror}") from None


def _rank(folder: Path) -> tuple[bool, int, str]:
    number = folder.name.isascii() and folder.name.isdecimal()
    return not number, int(folder.name) if number else 0, folder.name
