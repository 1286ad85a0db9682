"""What Schemathesis must not do: revoke or rotate the key that it sends."""

from __future__ import annotations

import os
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Aim a call at another key instead."""
    if (case.path_parameters or {}).get("key_id") == os.environ["FUZZ_OWN"]:
        case.path_parameters["key_id"] = os.environ["FUZZ_SPARE"]
