"""Text from elsewhere, for a terminal or a log: what is not a visible character cannot act."""

from __future__ import annotations

import re

# Control characters of both kinds, separators that some readers take for line ends, and what turns the direction of
# writing around.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""The text on one line, with all that would move a cursor, begin a line or change a colour written out.

    Example:
        >>> print(printable("done\n2026 [error] forged \x1b[31m"))
        done\n2026 [error] forged \x1b[31m
    """
    return _ACTING.sub(lambda found: repr(found[0])[1:-1], text)
