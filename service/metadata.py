"""Metadata: a few words of the user's own at a job, a sweep or a model."""

from __future__ import annotations

import json
from collections.abc import Mapping

from service.connection import RoleClient
from service.scripts import Script
from warploom.errors import InvalidInput
from warploom.spec import MOST_PAIRS

_change = Script("metadata")


def change_metadata(client: RoleClient, key: str, changes: Mapping[str, str | None]) -> bool:
    """Set pairs and remove names (None) in the hash `key`; False when there is no such hash.

    Raises:
        InvalidInput: there would be more than 16 pairs; nothing is changed.
    """
    word, *count = _change(client, [key], [json.dumps(dict(changes)), MOST_PAIRS])
    if word == b"full":
        raise InvalidInput(
            f"metadata would have {int(count[0])} pairs; at most {MOST_PAIRS} are kept",
            field="/metadata",
            rule=f"at most {MOST_PAIRS} pairs",
            value=int(count[0]),
        )
    return bool(word == b"ok")
