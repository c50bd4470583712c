"""Tokens to batches: which trees lie together, and in which order."""
