"""Snippets to preference pairs, after CodePMP."""
