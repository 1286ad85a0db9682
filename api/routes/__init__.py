"""The routes of `/v1` and of health, one file for each kind of object."""
