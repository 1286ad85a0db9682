"""Lua scripts: one file for each change of several keys; `_prelude.lua` stands before each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from service.connection import RoleClient

FOLDER = Path(__file__).parent
PRELUDE = "_prelude.lua"


class Script:
    """One script, sent by hash and in full only to a server that does not know it.

    Args:
        name: file name without `.lua`.
        preludes: files that stand before it.
    """

    def __init__(self, name: str, *preludes: str) -> None:
        files = [PRELUDE, *preludes, f"{name}.lua"]
        self.text = "\n".join((FOLDER / file).read_text(encoding="utf-8") for file in files)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: RoleClient, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> Any:
        """Run it on `client`."""
        rest = (len(keys), *keys, *args)
        try:
            return client.execute_command("EVALSHA", self.sha, *rest)
        except NoScriptError:
            return client.execute_command("EVAL", self.text, *rest)
