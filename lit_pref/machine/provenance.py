"""Where and with what a process runs: package versions, the state of the code, the memory it took."""

import math
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

PACKAGES = ("lit-pref", "torch", "lightning", "transformers", "wandb")


class GitState(NamedTuple):
    """The commit checked out in the working directory, and whether tracked files differ from it; None outside git."""

    commit: str | None
    dirty: bool | None


def git_state() -> GitState:
    """Asks git about the working directory."""
    commit = _git("rev-parse", "HEAD")
    # Untracked files do not count: run folders usually lie among them.
    changed = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return GitState(commit, None if changed is None else bool(changed))


def _git(*arguments: str) -> str | None:
    """Git's answer; None where there is no git, no repository, no commit, or no answer within ten seconds."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that decide results; None for one that is not installed."""
    return {"python": platform.python_version(), **{name.replace("-", "_"): _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: tensors on a CUDA device, else its resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # KiB but on macOS


def json_number(value: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return value if math.isfinite(value) else None
