"""The folder in which programs run: empty for each, and with nothing that the one before left on the folder itself."""

import os

from lit_pref.sandbox import isolate


class Scratch:
    """folder: an ordinary one; None for a file system of its own, of so many MB, inside namespaces."""

    def __init__(self, folder: str | None, size_mb: int) -> None:
        self.folder = folder or isolate.SCRATCH
        self._mounted, self._size_mb = folder is None, size_mb
        self._unused = self._state()

    def clean(self) -> None:
        """Make it new where it was touched."""
        if self._state() != self._unused:
            self._renew()

    def _renew(self) -> None:
        if self._mounted:
            isolate.renew_scratch(self._size_mb)
        else:
            import shutil  # it loads four shared libraries, each of which makes every fork dearer

            shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder, exist_ok=True)
        self._unused = self._state()

    def _state(self) -> tuple[list[str], tuple[int, ...]]:
        names = os.listdir(self.folder)  # first: it may count as an access
        state = os.stat(self.folder)
        return names, (*state[:7], state.st_atime_ns, state.st_mtime_ns, state.st_ctime_ns)
