"""Memory that no forked process has: what one program was sent or wrote is never in what the next one inherits.

What is here becomes no object of this process, whose freed objects every later program could read. Elsewhere than on
Linux, where nothing isolates programs, it is memory as any other.
"""

import mmap
import os


class Unforked:
    """A buffer of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_DONTFORK"):
            self._map.madvise(mmap.MADV_DONTFORK)
        self.view = memoryview(self._map)

    def read(self, source: int, at: int = 0, count: int | None = None) -> int:
        """How many bytes came from the descriptor, at most `count`, to this place; 0 at its end."""
        return os.readv(source, [self.view[at : None if count is None else at + count]])

    def last(self, byte: bytes, end: int) -> int:
        """Where the byte is for the last time before the end; -1 for nowhere."""
        return self._map.rfind(byte, 0, end)


def write_all(sink: int, *pieces: memoryview) -> None:
    """One after another, however many writes it takes."""
    left = [piece for piece in pieces if piece]
    while left:
        size = os.writev(sink, left)
        while left and size >= len(left[0]):
            size -= len(left.pop(0))
        if left:
            left[0] = left[0][size:]
