"""Lua scripts: one file for each change of several keys; `_prelude.lua` stands before each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from service.connection import Arg, RoleClient, packed

__all__ = ["FOLDER", "PRELUDE", "Arg", "Script"]

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

    def command(self, keys: Sequence[str], args: Sequence[Arg]) -> tuple[Any, ...]:
        """The command that runs it on a server that knows it, for clients of other kinds."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def many(self, client: RoleClient, calls: Sequence[tuple[Sequence[str], Sequence[Arg]]]) -> list[Any]:
        """Run it once for each call, all in one round trip; each call is atomic, the whole is not.

        Raises:
            ResponseError: the first failure; the calls after it were run nevertheless.
        """
        if len(calls) == 1:
            return [self(client, *calls[0])]
        pipe = client.pipeline(transaction=False)
        for keys, args in calls:
            pipe.execute_command(*self.command(keys, args))  # type: ignore[no-untyped-call]
        with client.translated():
            found: list[Any] = pipe.execute(raise_on_error=False)
        for i, result in enumerate(found):
            if isinstance(result, NoScriptError):
                found[i] = self(client, *calls[i])
        for result in found:
            if isinstance(result, Exception):
                with client.translated():
                    raise result
        return found

    def after(
        self, client: RoleClient, first: Sequence[Sequence[Arg]], keys: Sequence[str], args: Sequence[Arg]
    ) -> Any:
        """Run the commands `first`, whose failures are not looked at, and then this script, in one round trip."""
        answer = client.exchange(packed([*first, self.command(keys, args)]), len(first) + 1)[-1]
        if isinstance(answer, NoScriptError):
            return client.execute_command("EVAL", self.text, len(keys), *keys, *args)
        if isinstance(answer, Exception):
            with client.translated():
                raise answer
        return answer

    def __call__(self, client: RoleClient, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run it on `client`."""
        return self.after(client, (), keys, args)
