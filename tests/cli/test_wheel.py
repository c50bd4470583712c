"""What someone has who installs the wheel and has no clone: all configurations, and a study that runs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = ROOT / "configs"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as a wheel holds it, and nothing of the clone."""
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in ("lit_pref", "configs", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-a", "--parents", name, str(source)], cwd=ROOT, check=True)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed), "WANDB_MODE": "disabled", "LIT_PREF_CACHE": "cache"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_wheel_holds_all_configurations(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configs = installed / "lit_pref" / "configs"
    held = {str(file.relative_to(configs)): file.read_text() for file in configs.rglob("*.yaml")}
    assert held == {str(file.relative_to(OWN)): file.read_text() for file in OWN.rglob("*.yaml")}
    shown = run(installed, "lit_pref.cli.main", "fit", "--config", "dpo_budget", "--print_config")
    assert "LikelihoodBudget" in shown


def test_a_study_runs(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "README.md there has the commands" in run(installed, "lit_pref.cli.main", "init", "study")
    monkeypatch.chdir("study")
    run(installed, "pytest", "-q")
    laid = [option for name in ("dpo", "study.yaml", "quick.yaml") for option in ("--config", name)]
    run(installed, "lit_pref.cli.main", "fit", *laid, "--run_name=first", "--trainer.max_steps=2")
    summary = json.loads(Path("runs/study/dpo/first/summary.json").read_text())
    assert (summary["status"], summary["optimizer_steps"]) == ("finished", 2)
    assert "my_objectives.CappedDPO" in Path("runs/study/dpo/first/config.yaml").read_text()


def test_the_notebook_of_a_study_runs(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(installed, "lit_pref.cli.main", "init", ".")
    cells = json.loads(Path("study.ipynb").read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    Path("cells.py").write_text(source)
    assert "pass@1" in run(installed, "cells")
