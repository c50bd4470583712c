"""The command that starts a worker inside bubblewrap: namespaces and a root of read-only folders, made by a program
that many distributions ship and allow where they allow nobody else.

The worker is process 1 in there and may mount its own scratch folder, which programs may not.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_pref.errors import SandboxUnavailableError
from lit_pref.sandbox import visible

_INSIDE = "/worker"


def bubblewrapped(script: Path, arguments: Sequence[str]) -> list[str]:
    """The command for `python script arguments` in bubblewrap. Raises SandboxUnavailableError where there is none."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailableError("there is no bwrap (Debian and Ubuntu: apt-get install bubblewrap)")
    interpreter = os.path.realpath(sys.executable)
    # Not --die-with-parent: that is the thread which starts it, and a thread may end. A worker ends with its pipe.
    command = [bwrap, "--unshare-all", "--as-pid-1", "--uid", "65534", "--gid", "65534"]
    command += ["--cap-add", "CAP_SYS_ADMIN"]  # to mount scratch folders; `Lock` takes it from programs
    for folder in visible.folders():
        command += ["--ro-bind", folder, folder]
        for packages in visible.installed_packages(folder):
            command += ["--tmpfs", packages, "--remount-ro", packages]
    for file in [*visible.files(), interpreter]:
        command += ["--ro-bind", file, file]
    for device in visible.DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--ro-bind", str(script.parent), _INSIDE, "--dir", "/tmp", "--remount-ro", "/", "--chdir", "/"]
    return [*command, "--", interpreter, *arguments, f"{_INSIDE}/{script.name}"]
