"""The kit's own configurations by name, from a clone and from an installed wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lit_pref.cli.configs import with_own_configs
from lit_pref.cli.main import main
from lit_pref.errors import UserError

ROOT = Path(__file__).parents[2]
OWN = {str(file.relative_to(ROOT / "configs")): file for file in (ROOT / "configs").rglob("*.yaml")}


def test_every_configuration_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"dpo_budget.yaml", "data/pairs.yaml", "paper/code_dpo_codellama.yaml"} <= OWN.keys()
    for name, file in OWN.items():
        for given in (["--config", name.removesuffix(".yaml")], [f"--config={name.removesuffix('.yaml')}"]):
            found = with_own_configs(["fit", *given])[-1].removeprefix("--config=")
            assert Path(found).samefile(file), name


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sft").mkdir()  # a folder is no configuration
    Path("dpo").write_text("seed_everything: 1\n")
    arguments = ["fit", "--config", "dpo", "--run_name", "simpo"]
    assert with_own_configs(arguments) == arguments
    assert with_own_configs(["fit", "--config", "sft"]) != ["fit", "--config", "sft"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("dpo_budgt", "dpo_budget"), ("configs/data/pair.yaml", "data/pairs"), ("zzz", "dpo, ")],
)
def test_an_unknown_name_lists_near_ones(name: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{name} does not exist, and the kit has none of this name; near: {near}"):
        with_own_configs(["fit", "--config", name])


def test_names_are_laid_over_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", "dpo", "--config", "model/lora", "--config=data/pairs", "--print_config"])
    assert exit_.value.code == 0
    assert "lit_pref.datamodules.PairsDataModule" in (shown := capsys.readouterr().out) and "lora_alpha: 32" in shown


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


@pytest.mark.slow
def test_a_wheel_holds_all_configurations(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configs = installed / "lit_pref" / "configs"
    held = {str(file.relative_to(configs)): file.read_text() for file in configs.rglob("*.yaml")}
    assert held == {name: file.read_text() for name, file in OWN.items()}
    shown = run(installed, "lit_pref.cli.main", "fit", "--config", "dpo_budget", "--print_config")
    assert "LikelihoodBudget" in shown
