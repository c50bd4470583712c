"""Runs lie apart: at the same second, under one name, and while another one is at work."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from lit_pref.callbacks import run_folders
from lit_pref.callbacks.run_folders import FolderClaim, folder_of_checkpoint, new_folder
from lit_pref.errors import UserError


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Clock":
            return cls(2031, 2, 3, 4, 5, 6)

    monkeypatch.setattr(run_folders, "datetime", Clock)
    names = [new_folder(tmp_path / "dpo", None, 7, trains=True).name for _ in range(3)]
    stem = "2031-02-03_04-05-06-seed7"
    assert names == [stem, f"{stem}-2", f"{stem}-3"]


def test_a_name_whose_run_has_a_checkpoint_is_taken(tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "mine", 0, trains=True)
    assert new_folder(tmp_path, "mine", 0, trains=True) == folder  # it was stopped before its first checkpoint
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    with pytest.raises(UserError, match=rf"--run_name: .*mine holds a run already: .*--ckpt_path {last}"):
        new_folder(tmp_path, "mine", 0, trains=True)
    assert new_folder(tmp_path, "mine", 0, trains=False) == folder  # measuring adds to it


def test_a_folder_has_one_run_at_work(tmp_path: Path) -> None:
    claim = FolderClaim(tmp_path)
    with pytest.raises(UserError, match="another run is at work there"):
        FolderClaim(tmp_path)
    claim.release()
    FolderClaim(tmp_path).release()
    # A process that is killed holds nothing any more.
    code = (
        "import os, sys, fcntl; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    FolderClaim(tmp_path).release()


def test_the_folder_of_a_checkpoint(tmp_path: Path) -> None:
    assert folder_of_checkpoint(tmp_path / "checkpoints" / "last.ckpt") == tmp_path
    assert folder_of_checkpoint(tmp_path / "stable_checkpoints" / "x.ckpt") is None
