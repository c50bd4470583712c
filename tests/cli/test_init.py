"""`lit-pref init`: a study that runs as it is, in a folder that held nothing."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lit_pref.cli.main import main

STUDY = Path(__file__).parents[2] / "lit_pref" / "cli" / "study"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "my_objectives", ModuleType("of another test"))
    del sys.modules["my_objectives"]  # and afterwards it is again what it was before


def test_a_study_has_all_its_parts_and_resolves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", "new/study"])
    monkeypatch.chdir("new/study")
    assert {path.name for path in Path().iterdir()} == {path.name for path in STUDY.iterdir()} - {"__pycache__"}
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", "dpo", "--config", "study.yaml", "--config", "quick.yaml", "--print_config"])
    assert exit_.value.code == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    objective = resolved["model"]["init_args"]["objective"]
    assert objective == {"class_path": "my_objectives.CappedDPO", "init_args": {"beta": 0.1, "cap": 2.0}}
    data = resolved["data"]["init_args"]
    assert (data["train_size"], data["samples"]["each"], data["samples"]["sampling"]["temperature"]) == (60, 4, 1.0)
    commands = [line for line in Path("README.md").read_text().splitlines() if line.startswith("    lit-pref")]
    assert len(commands) == 4 and len(Path("README.md").read_text().splitlines()) <= 12


def test_the_objective_of_a_study_holds_its_own_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STUDY)
    names: dict[str, object] = {}
    exec((STUDY / "test_my_objectives.py").read_text(), names)
    test = names["test_capped_dpo_is_dpo_up_to_its_cap"]
    assert callable(test)
    test()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["full"], "full exists and is not empty: name a new folder"),
        (["file"], "file exists and is not empty: name a new folder"),
        ([], "expected a folder, as in: lit-pref init my-study, got nothing"),
        (["a", "b"], "expected a folder, as in: lit-pref init my-study, got a b"),
        (["--force"], "expected a folder, as in: lit-pref init my-study, got --force"),
    ],
)
def test_only_a_new_or_empty_folder(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/kept").write_text("kept")
    Path("file").write_text("kept")
    with pytest.raises(SystemExit) as exit_:
        main(["init", *arguments])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"lit-pref: error: {expected}\n"
    assert [path.name for path in Path("full").iterdir()] == ["kept"]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("study.yaml", "my_objectives.py", "study.ipynb", "README.md"))
