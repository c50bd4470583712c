"""Completions to verdicts: code by tests, answers by equality."""
