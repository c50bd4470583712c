"""A sandbox of each level of isolation, shared by the tests of a file."""

import shutil

import pytest

from lit_pref.sandbox import IsolatedSandbox

LEVELS = ["namespaces", "bubblewrap", "seccomp"]


def rotated(names, *turns):
    """A third of the names, another one for each turn: over three levels each name comes once."""
    return [name for place, name in enumerate(names) if (place + sum(turns)) % len(LEVELS) == 0]


@pytest.fixture(scope="module", params=LEVELS)
def any_sandbox(request):
    if request.param == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    with IsolatedSandbox(request.param, workers=2, timeout=0.8, cpu_seconds=3, memory_mb=128, output_kb=64) as opened:
        yield opened
