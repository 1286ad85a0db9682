"""`python -m warploom.cli`."""

from warploom.cli.app import main

main()
