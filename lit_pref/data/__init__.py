"""Preference data from a file's line to a batch."""
