"""Task families: one file each, one config class, one line in `warploom.registry`."""
