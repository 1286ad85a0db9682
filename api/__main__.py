"""`python -m api`: serve until told to stop."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Load and serve."""
    # Nothing that is loaded goes away, and the collector would walk all of it again and again.
    gc.disable()
    from api.serving import serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
