"""Run untrusted Python programs under isolation and limits, and compare their results outside their process."""

from lit_pref.sandbox.sandbox import (
    BubblewrapSandbox,
    NamespaceSandbox,
    SeccompSandbox,
    UnsafeSubprocessSandbox,
    default_sandbox,
    level_in_force,
)

__all__ = [
    "BubblewrapSandbox",
    "NamespaceSandbox",
    "SeccompSandbox",
    "UnsafeSubprocessSandbox",
    "default_sandbox",
    "level_in_force",
]
