"""What can be set about each model, a file for each. No torch here: the API reads these."""
