"""Random numbers that depend on names and numbers alone, never on order or on process."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*path: int | str) -> int:
    """A seed in [0, 2^63) from a path of names and numbers.

    The path is hashed (SHA-256 over its length-prefixed parts), so streams of different paths are independent and
    the same on every machine.

    Example:
        >>> derive(7, "task", 3) == derive(7, "task", 3) != derive(7, "task", 4)
        True
    """
    digest = hashlib.sha256()
    for part in path:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def generator(*path: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive(*path)`."""
    import torch

    return torch.Generator().manual_seed(derive(*path))
