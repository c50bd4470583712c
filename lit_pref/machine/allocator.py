"""The C library's allocator, told to keep what is freed for the next step.

A training step on a CPU frees its activations, and the next step asks for as much. In between glibc gives the memory
back to the system, which fills every page with zeros before it hands it out again: a tenth to a fifth of a step's time
on two processors (`docs/performance.md`). Not covered: other allocators, which are left alone.
"""

import ctypes
import os
import platform
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_SETTINGS = {
    _TRIM_THRESHOLD: 2**31 - 1,  # never return free memory at the heap's end
    _MMAP_THRESHOLD: 2**26,  # map only blocks above 64 MiB, such as large weights, so that they leave no holes
    _TOP_PAD: 2**26,  # grow the heap by 64 MiB
}
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """For the whole process and its rest; False where the allocator is not glibc's, or the user's environment sets it.

    The process keeps the most that it has used: what the run needs at its largest step.
    """
    if any(name in os.environ for name in _OWN) or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(setting, value) for setting, value in _SETTINGS.items())
