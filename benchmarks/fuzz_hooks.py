"""What Schemathesis must not do: change the key that it sends, or give the service no time and blame it for a 504."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

LEAST_S = 10.0


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Aim a call at another key, and leave the service the time to answer."""
    if (case.path_parameters or {}).get("key_id") == os.environ["FUZZ_OWN"]:
        case.path_parameters["key_id"] = os.environ["FUZZ_SPARE"]
    timeout = (case.headers or {}).get("X-Request-Timeout")
    if timeout is not None and _too_short(str(timeout)):
        case.headers["X-Request-Timeout"] = str(LEAST_S)


def _too_short(timeout: str) -> bool:
    try:
        return 0 < float(timeout) < LEAST_S
    except ValueError:
        return False
