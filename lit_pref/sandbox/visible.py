"""What of the file system a program may read: the standard library and shared libraries, without installed packages."""

import glob
import os
import sys

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def folders() -> list[str]:
    """Outermost folders only."""
    prefixes = {sys.base_prefix, sys.base_exec_prefix, "/", "/usr"}
    wanted = {os.path.join(prefix, name) for prefix in prefixes for name in ("lib", "lib64")}
    wanted.add(os.path.dirname(os.path.realpath(os.__file__)))
    found: list[str] = []
    for path in sorted(wanted):
        if os.path.isdir(path) and not any(path.startswith(folder + "/") for folder in found):
            found.append(path)
    return found


def files() -> list[str]:
    """Single files beside them."""
    return [path for path in ("/etc/ld.so.cache",) if os.path.exists(path)]


def installed_packages(folder: str) -> list[str]:
    """What to hide in a folder: installed packages may hold the very answers that programs are graded by."""
    names = ("python*/site-packages", "python*/dist-packages", "site-packages", "dist-packages")
    return [path for name in names for path in glob.glob(f"{folder}/{name}")]
