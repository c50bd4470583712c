"""Git is asked in folders made for it; memory and versions are compared with what the process knows of itself."""

import math
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from lit_pref.machine.provenance import GitState, git_state, json_number, peak_memory_bytes, versions


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_dirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() == GitState(None, None)  # no repository

    git(tmp_path, "init")
    assert git_state() == GitState(None, None)  # no commit
    (tmp_path / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "untracked.csv").write_text("step\n")
    assert git_state() == GitState(commit, False)

    (tmp_path / "a.py").write_text("x = 2\n")
    assert git_state() == GitState(commit, True)


def test_a_machine_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == GitState(None, None)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="compares with Linux's own account")
def test_peak_memory_is_in_bytes():
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    high_water = int(line.split()[1]) * 1024  # stands there in kB
    assert peak_memory_bytes(torch.device("cpu")) == pytest.approx(high_water, rel=0.02)


def test_versions_name_python_and_the_packages():
    found = versions()
    assert found["torch"] == version("torch") and found["lit_pref"] == version("lit-pref")
    assert found["python"] and found["python"].startswith("3.")


@pytest.mark.parametrize(("value", "expected"), [(1.5, 1.5), (math.nan, None), (-math.inf, None)])
def test_json_number(value: float, expected: float | None):
    assert json_number(value) == expected
