"""The API as a process of its own."""

from __future__ import annotations

import subprocess
import sys


def test_the_api_carries_neither_torch_nor_ray_and_imports_fast() -> None:
    code = (
        "import sys, time; begin = time.monotonic(); import api.app, api.__main__; "
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules; print(time.monotonic() - begin)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # About one second; the margin is for a busy machine.
    assert float(done.stdout) < 6
