"""Where checkpoints lie: a directory of this machine, or anything that fsspec has a URL for.

An *entry* is a named set of small files that is there as a whole or not at all: in a directory by renaming, elsewhere
(object stores know no renaming) because its last file, the manifest, is written after all others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from warploom.errors import SetupError, Unavailable

TRIES = 5
FIRST_WAIT_S = 0.2
DRAFT = ".draft-"
DRAFT_S = 600.0  # a draft older than this is of a writer that died; the clock, because writers may be on other machines
Answer = TypeVar("Answer")


class Storage(Protocol):
    """Entries of named files, and single files beside them."""

    def entries(self) -> list[str]:
        """Names of all entries, whole or not."""
        ...

    def put(self, entry: str, files: Mapping[str, bytes]) -> str:
        """Write an entry, the last file last; it is durable when this returns. Where it lies.

        Raises:
            Unavailable: no room, no right, no answer; the entry is not there then, or as it was.
        """
        ...

    def get(self, path: str) -> bytes:
        """The content of `file` or `entry/file`.

        Raises:
            FileNotFoundError: there is no such file, or it cannot be read for good.
            Unavailable: the storage does not answer now.
        """
        ...

    def put_file(self, name: str, content: bytes) -> None:
        """Write a single file; the old content or the new one is there at any time.

        Raises:
            Unavailable: as `put`.
        """
        ...

    def remove(self, entry: str) -> None:
        """Delete an entry; one that is not there, or cannot be deleted now, is no error."""
        ...


def open_storage(where: str | Path) -> Storage:
    """The storage at a path or URL; nothing is made before the first `put`.

    Args:
        where: a directory, `file:///…`, or any URL that an installed package gives fsspec a file system for.

    Raises:
        SetupError: no file system for such a URL.
    """
    text = str(where)
    if text.startswith("file://"):
        return LocalStorage(Path(unquote(urlsplit(text).path)))
    return UrlStorage(text) if "://" in text else LocalStorage(Path(text))


class LocalStorage:
    """Entries as directories: written under another name, fsynced, renamed.

    Args:
        folder: made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self) -> list[str]:
        """See `Storage.entries`."""
        if not self._folder.is_dir():
            return []
        return [path.name for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith(".")]

    def put(self, entry: str, files: Mapping[str, bytes]) -> str:
        """See `Storage.put`."""
        draft, target = self._draft(), self._folder / entry
        with self._drafting(draft):
            draft.mkdir(parents=True)
            for name, content in files.items():
                _write(draft / name, content)
            _sync_folder(draft)
            if target.exists():  # a directory cannot be replaced in one step, and an entry's content is always the same
                shutil.rmtree(target)
            draft.rename(target)
            _sync_folder(self._folder)
        return str(target)

    def get(self, path: str) -> bytes:
        """See `Storage.get`; a file that cannot be read is as good as lost."""
        try:
            return (self._folder / path).read_bytes()
        except OSError as error:
            raise FileNotFoundError(f"{self._folder / path}: {error.strerror}") from error

    def put_file(self, name: str, content: bytes) -> None:
        """See `Storage.put_file`."""
        draft = self._draft()
        with self._drafting(draft):
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(draft, content)
            draft.replace(self._folder / name)
            _sync_folder(self._folder)

    def remove(self, entry: str) -> None:
        """See `Storage.remove`."""
        shutil.rmtree(self._folder / entry, ignore_errors=True)

    def _draft(self) -> Path:
        return self._folder / f"{DRAFT}{secrets.token_hex(8)}"

    @contextlib.contextmanager
    def _drafting(self, draft: Path) -> Iterator[None]:
        """Leave no draft behind when the disk is full, and none of a writer that died."""
        try:
            yield
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be written: {error.strerror or error}") from error
        finally:
            _discard(draft)
        for left in self._folder.glob(f"{DRAFT}*"):
            if _age_s(left) > DRAFT_S:
                _discard(left)


class UrlStorage:
    """Entries below a URL of fsspec; every call is tried several times.

    Args:
        url: of the folder.

    Raises:
        SetupError: no file system for such a URL.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._fs, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise SetupError(
                f"no way to store files at {url!r}: {error}",
                field="checkpoint_url",
                rule="a directory, or a URL that fsspec has a file system for",
                value=url,
            ) from error
        self._url = url

    def entries(self) -> list[str]:
        """See `Storage.entries`."""

        def look() -> list[str]:
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
            return [str(one["name"]).rstrip("/").rpartition("/")[2] for one in found if one["type"] == "directory"]

        return self._tried("listed", look)

    def put(self, entry: str, files: Mapping[str, bytes]) -> str:
        """See `Storage.put`."""
        *_, last = files
        self._tried("written", lambda: self._clear(f"{entry}/{last}"))
        for name, content in files.items():
            self.put_file(f"{entry}/{name}", content)
        return f"{self._url}/{entry}"

    def _clear(self, path: str) -> None:
        """What is half overwritten must not look whole."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{path}")

    def get(self, path: str) -> bytes:
        """See `Storage.get`."""
        content: bytes = self._tried("read", lambda: self._fs.cat_file(f"{self._root}/{path}"))
        return content

    def put_file(self, name: str, content: bytes) -> None:
        """See `Storage.put_file`."""

        def put() -> None:
            self._fs.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{name}", content)

        self._tried("written", put)

    def remove(self, entry: str) -> None:
        """See `Storage.remove`."""
        with contextlib.suppress(Exception):  # what stays is deleted with the next prune
            self._fs.rm(f"{self._root}/{entry}", recursive=True)

    def _tried(self, what: str, work: Callable[[], Answer]) -> Answer:
        wait_s = FIRST_WAIT_S
        for left in reversed(range(TRIES)):
            try:
                return work()
            except FileNotFoundError:
                raise
            except Exception as error:  # each file system has errors of its own
                if not left:
                    raise Unavailable(f"{self._url} cannot be {what}: {type(error).__name__}: {error}") from error
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
