"""Problems that know how to grade a completion."""

from lit_pref.tasks.code import CodeTask

__all__ = ["CodeTask"]
