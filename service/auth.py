"""The API key: made once, stored hashed."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from service import keys
from service.connection import Connections
from warploom.errors import InvalidInput

PREFIX = "wlk_"
SHORTEST = 16


class KeyRing:
    """The one key that the API accepts; only its SHA-256 is stored (state server)."""

    def __init__(self, connections: Connections) -> None:
        self._state = connections.state

    def ensure_first(self, given: str | None = None) -> str | None:
        """See to it that there is a key.

        Args:
            given: the operator's own key; it replaces any other.

        Returns:
            A new key `wlk_…` when this call made one (it can never be read again), else None.

        Raises:
            InvalidInput: the given key is shorter than 16 characters.
        """
        if given is not None:
            if len(given) < SHORTEST:
                rule = f"at least {SHORTEST} characters"
                raise InvalidInput("the given API key is too short", field="api_key", rule=rule)
            self._state.execute_command("SET", keys.AUTH, _digest(given))
            return None
        made = PREFIX + secrets.token_urlsafe(32)
        # One command decides which of two processes that start together makes the key.
        return made if self._state.execute_command("SET", keys.AUTH, _digest(made), "NX") else None

    def check(self, presented: str) -> bool:
        """Whether this is the key, in a time that does not depend on how much of it fits."""
        stored = self._state.execute_command("GET", keys.AUTH) or b""
        return hmac.compare_digest(stored, _digest(presented).encode())


def _digest(key: str) -> str:
    # A key has 256 random bits, so a plain hash is enough: there is no dictionary to slow down.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
