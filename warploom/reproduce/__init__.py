"""The literature's experiments, one file each: `warploom reproduce list`."""
