"""The HTTP API. Stands on `service` and on warploom's light modules; carries neither torch nor Ray."""
