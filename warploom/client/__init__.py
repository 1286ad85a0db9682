"""The Python client: everything that the service's HTTP API offers, typed, blocking or asynchronous. Loads no torch.

Example:
    >>> from warploom.client import Client
    >>> with Client("http://localhost:8000", api_key="…") as client:      # doctest: +SKIP
    ...     job = client.submit({"algorithm": "warpgrad", "task": "glyphs", "model": "warp_conv4"})
    ...     job = job.wait()
    ...     adapted = client.adapt(job.model, support_x, support_y, query_x)
"""

from __future__ import annotations

from warploom.client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
