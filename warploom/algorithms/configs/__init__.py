"""What can be set about each algorithm, a file for each. No torch here: the API reads these."""
