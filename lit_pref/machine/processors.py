"""How many processors this process may keep busy (affinity, quota of its control group), and what they can do.

A container with a quota of two processors on a machine of 64 reports 64 to everyone who asks; 64 threads then wait for
each other. Not covered: quotas of parent groups that a container does not see.
"""

import math
import os
import sys
from functools import cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}  # as Linux names them, on x86 and on ARM


def usable_processors(cgroup: Path = _CGROUP) -> int:
    """Processors, at least 1."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(usable, _quota(cgroup)))


def multiplies_bf16(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the processor has bf16 instructions; without them bf16 is slower than fp32, up to 50 times."""
    if not cpu_info.is_file():
        return sys.platform == "darwin"
    lines = (line.partition(":") for line in cpu_info.read_text().splitlines())
    flags = {flag for name, _, values in lines if name.strip() in ("flags", "Features") for flag in values.split()}
    return bool(flags & _BF16)


@cache  # once a process
def tell_slow_bf16(asked: str) -> None:
    """One line for a run on this processor that asks for bf16, where it has no instructions for it.

    asked: by which argument.
    """
    if not multiplies_bf16():
        print(
            f"{asked}: this processor has no bf16 instructions, so bf16 is slower than fp32 here, up to 50 times; "
            "leave it out unless memory is short",
            file=sys.stderr,
            flush=True,
        )


def _quota(cgroup: Path) -> int:
    """The control group's quota in processors, rounded up; as good as infinite where there is none."""
    two, one = cgroup / "cpu.max", cgroup / "cpu" / "cpu.cfs_quota_us"  # versions 2 and 1
    if two.is_file():
        quota, period = two.read_text().split()
    elif one.is_file():
        quota, period = one.read_text().strip(), one.with_name("cpu.cfs_period_us").read_text().strip()
    else:
        return sys.maxsize
    return sys.maxsize if quota in ("max", "-1") else math.ceil(int(quota) / int(period))
