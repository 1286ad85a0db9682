"""Ids that sort by time: a prefix, 11 characters of microseconds, 9 of chance."""

from __future__ import annotations

import re
import secrets
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last = 0


def new_id(kind: str) -> str:
    """A fresh id, `<kind>_` and 20 characters; later ids of one process sort after earlier ones.

    Example:
        >>> new_id("job") < new_id("job")
        True
    """
    global _last  # noqa: PLW0603
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1000)
        stamp = _last
    return f"{kind}_{text(stamp, 11)}{text(secrets.randbits(45), 9)}"


def is_id(kind: str, text: str) -> bool:
    """Whether `text` has the form of an id of this kind."""
    return re.fullmatch(rf"{kind}_[0-9a-z]{{20}}", text) is not None


def text(number: int, width: int) -> str:
    """The last `width` digits of a number in base 32, in the letters of ids."""
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
