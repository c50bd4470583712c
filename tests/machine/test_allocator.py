import os
import subprocess
import sys

import pytest

from lit_pref.machine.allocator import keep_freed_memory

# Pages that the system had to hand out while 200 MB in pieces of 20 MB were taken, written and freed 20 times.
COUNT = """
import ctypes, resource, sys
from lit_pref.machine.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
def step():
    pieces = [ctypes.create_string_buffer(20 << 20) for _ in range(10)]
step()
start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
"""


def faults(how: str, **environment: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", COUNT, how]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_steps_memory_serves_the_next_one():
    kept, few = faults("kept")
    if kept == "False":
        pytest.skip("not glibc")
    _, many = faults("plain")
    assert few * 20 < many  # 20 steps of 200 MB are a million pages of 4 KiB


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_users_own_setting_stands(name: str):
    assert faults("kept", **{name: "" if name == "GLIBC_TUNABLES" else "131072"})[0] == "False"


def test_asking_again_changes_nothing():
    assert keep_freed_memory() == keep_freed_memory()
