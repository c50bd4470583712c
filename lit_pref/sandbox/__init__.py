"""Run untrusted Python programs under isolation and limits, and compare their results outside their process."""

from lit_pref.sandbox.sandbox import IsolatedSandbox, default_sandbox, level_in_force

__all__ = ["IsolatedSandbox", "default_sandbox", "level_in_force"]
