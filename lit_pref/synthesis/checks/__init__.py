"""Tests that a model writes, and which of them are worth keeping."""
