"""Errors whose message is meant for the user: the command line prints them without a traceback and exits with 2."""


class UserError(ValueError):
    """Something the user gave cannot be used: a file, a row, a config field, a model folder.

    The message says where (file and line, row and key, or config field), what was expected, what stood there,
    and how to mend it.
    """


class SandboxUnavailableError(RuntimeError):
    """No isolation is possible on this machine, and the unsafe option was not chosen."""
