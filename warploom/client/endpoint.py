"""Which service to talk to, and as whom."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

DEFAULT_URL = "http://127.0.0.1:8000"


class Endpoint(NamedTuple):
    """A service's address and the key for it."""

    url: str
    api_key: str | None


def home() -> Path:
    """The folder of a local service: `$WARPLOOM_HOME`, else `~/.warploom`."""
    return Path(os.environ.get("WARPLOOM_HOME") or Path.home() / ".warploom").expanduser()


def find(url: str | None = None, api_key: str | None = None) -> Endpoint:
    """The endpoint from arguments, else `WARPLOOM_URL` and `WARPLOOM_API_KEY`, else the local credentials file.

    The file's key goes only to the file's own address: a key must not reach another server because the address was
    changed.
    """
    saved = _saved()
    url = (url or os.environ.get("WARPLOOM_URL") or saved.url or DEFAULT_URL).rstrip("/")
    key = api_key or os.environ.get("WARPLOOM_API_KEY")
    if key is None and url == saved.url.rstrip("/"):
        key = saved.api_key
    return Endpoint(url, key)


def _saved() -> Endpoint:
    try:
        document = json.loads((home() / "credentials.json").read_text(encoding="utf-8"))
        return Endpoint(str(document.get("url") or ""), document.get("api_key"))
    except (OSError, ValueError, AttributeError):
        return Endpoint("", None)
