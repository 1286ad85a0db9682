"""What can be set about each task family, a file for each. No torch here: the API reads these."""
