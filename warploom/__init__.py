"""Warploom: meta-learning that is distributed by construction.

The package's top level loads nothing heavy: the client and the command line work without torch in memory.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
