"""Every benchmark runs from its command and writes the figures that the documentation quotes; sizes cut down."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def figures(tmp_path: Path, name: str, *arguments: str) -> dict[str, Any]:
    output = tmp_path / "figures.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(output), "--runs", "1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    written: dict[str, Any] = json.loads(output.read_text())
    return written


def test_dpo_against_trl(tmp_path: Path):
    pytest.importorskip("trl")
    of_embedded = figures(tmp_path, "dpo_vs_trl", "--workloads", "embedded")["embedded"]
    assert of_embedded["largest_relative_difference_of_losses"] < 1e-3
    for name in ("ratio", "ratio_precomputed", "ratio_whole", "ratio_whole_precomputed", "share_of_matmul_rate"):
        assert of_embedded[name] > 0


def test_rewards_against_trl(tmp_path: Path):
    pytest.importorskip("trl")
    of_docstrings = figures(tmp_path, "reward_vs_trl", "--workloads", "docstrings")["docstrings"]
    assert of_docstrings["largest_relative_difference_of_losses"] < 1e-3
    assert of_docstrings["ratio"] > 1 and of_docstrings["ratio_whole"] > 1


def test_ten_times_the_pairs(tmp_path: Path):
    scaled = figures(tmp_path, "scaling", "--rows", "200")
    assert scaled["rows_10x"] == 2000 and scaled["memory_ratio"] < 1.2


def test_the_first_step(tmp_path: Path):
    started = figures(tmp_path, "startup")
    assert 0 < started["seconds_to_first_step"] < started["seconds_with_empty_cache"]


def test_where_a_step_spends_its_time(tmp_path: Path):
    spent = figures(tmp_path, "step_profile")
    assert set(spent) == {"machine", "repeated", "dense", "trees", "compiled"}
    assert all(spent[variant]["matrix products"] > 0 for variant in set(spent) - {"machine"})
