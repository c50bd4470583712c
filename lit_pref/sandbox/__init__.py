"""Run untrusted Python programs under isolation and limits, and compare their results outside their process."""

from lit_pref.sandbox.sandbox import NamespaceSandbox, UnsafeSubprocessSandbox, default_sandbox

__all__ = ["NamespaceSandbox", "UnsafeSubprocessSandbox", "default_sandbox"]
