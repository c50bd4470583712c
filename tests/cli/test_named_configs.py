"""The kit's own configurations by name."""

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
