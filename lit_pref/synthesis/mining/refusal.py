"""Why a source file is not used: an error that never leaves the stage that reads files, and is counted there."""


class RefusedFileError(Exception):
    """A file that gives no snippet; `reason` is the short name under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
