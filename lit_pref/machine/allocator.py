"""The C library's allocator, told to keep what is freed for the next step.

A training step on a CPU frees its activations and takes as many a step later. glibc gives them back to the system in
between, which fills every page with zeros before it hands it out again: a tenth to a fifth of a step's time on two
processors (`benchmarks/README.md`). Not covered: other allocators, which have their own ways and are left alone.
"""

import ctypes
import os
import platform
from functools import cache

# Of malloc.h. Above the first threshold free memory at the heap's end goes back to the system; what the heap has no
# room for is mapped by itself above the second, as large weights are, which leave no holes then; by the third it grows.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: 2**26, _TOP_PAD: 2**26}
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
