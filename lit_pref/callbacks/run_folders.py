"""Where a run's files lie: a folder of its own, which no other run may enter while it is at work or after it."""

import errno
import fcntl
import os
from datetime import datetime
from itertools import count
from pathlib import Path
from weakref import finalize

from lit_pref.errors import UserError


def folder_of_checkpoint(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in; none for one that was taken elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def new_folder(parent: Path, name: str | None, seed: int | bool | None, trains: bool) -> Path:
    """Make a run's folder: by its name, or by time and seed, and a number where that is taken.

    trains: a name whose folder holds checkpoints is refused, with a UserError.
    """
    if name:
        folder = parent / name
        taken = sorted((folder / "checkpoints").glob("*.ckpt")) if trains else []
        if taken:
            raise UserError(
                f"--run_name: {folder} holds a run already: give another name, or go on with it by --ckpt_path "
                f"{taken[-1]}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-seed{seed}"
    for number in count(1):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count() does not end")


class FolderClaim:
    """One process's hold on a run folder, until `release`; the system lifts it where the process is killed.

    Raises UserError where another process is at work there.
    """

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        self.release = finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # else this file system knows no locks
                self.release()
                raise UserError(
                    f"{folder}: another run is at work there: wait for it, or take another --run_name"
                ) from error
