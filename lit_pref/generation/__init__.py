"""Prompts to completions."""

from lit_pref.generation.local import LocalGenerator

__all__ = ["LocalGenerator"]
