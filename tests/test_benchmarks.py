"""Every benchmark runs from its command and writes the figures that the documentation quotes; sizes cut down."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import codepmp
from benchmarks.codepmp import Arm
from benchmarks.real_codepmp import majority
from lit_pref.tasks import GSM8KSolutions
from lit_pref.tasks.published.solution_pairs import Solution

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


def test_snippets_against_bare_parsing(tmp_path: Path):
    found = figures(tmp_path, "snippets", "--source", str(ROOT / "lit_pref"))
    assert found["files"] > 100 and found["counts"]["snippets"] > 100 and 0 < found["ratio"] < 1


def test_what_code_pairs_cost(tmp_path: Path):
    sheet = tmp_path / "sheet.md"
    rates = ("--describer_rate", "2", "--pairs", "7200")
    found = figures(tmp_path, "code_pairs_cost", "--files", "20", "--seen", "1000", "--sheet", str(sheet), *rates)
    assert found["pairs_per_second"] > 0 and found["pair_bytes"] > 0
    assert "| 1 at 2 a second |" in sheet.read_text()  # 7,200 descriptions


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:Found .* module.* in eval mode at the start of training.*",
)
def test_codepmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    from benchmarks import codepmp_figures

    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    for name, value in {"HELD_OUT_PAIRS": 30, "BEST_OF_PROBLEMS": 4}.items():
        monkeypatch.setattr(codepmp, name, value)
    sizes = (codepmp.ABLATED, codepmp.SIZES[-1])
    arms = {
        "no PMP": Arm(sizes, descriptions=0, epochs=1, others=True),
        "PMP": Arm(sizes, descriptions=40, epochs=1, others=True),
    }
    monkeypatch.setattr(codepmp, "ARMS", arms)
    monkeypatch.setattr(codepmp_figures, "ARMS", arms)
    cells = tmp_path / "codepmp_test"
    cells.mkdir()
    for arm in arms:
        for seed in range(2):
            found = codepmp.run_cell(arm, seed, "test", tmp_path / f"{arm}-{seed}")
            assert 0 <= found["sizes"][str(codepmp.ABLATED)]["accuracy"] <= 1
            (cells / f"{arm}-{seed}.json").write_text(json.dumps(found))
    monkeypatch.setattr(sys, "argv", ["codepmp_figures", str(cells)])
    codepmp_figures.main()
    assert "| PMP |" in capsys.readouterr().out
    assert (tmp_path / "codepmp.png").stat().st_size > 10_000
    assert len((tmp_path / "codepmp.csv").read_text().splitlines()) == 1 + 8


def test_dpo_of_a_pretrained_model_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import cells, real_code_dpo, real_code_dpo_figures

    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    task = ["--task", "CodeTask"]  # in place of MBPP and HumanEval, which the policy cannot do
    monkeypatch.setattr(real_code_dpo, "BENCHMARKS", {"mbpp": task, "human_eval": [*task, "--seed", "1"]})
    monkeypatch.setattr(sys, "argv", _real_code_dpo(tmp_path))
    commands: list[str] = []
    run = cells.lit_pref

    def counted(arguments: Any, **settings: Any) -> None:
        commands.append(arguments[0])
        run(arguments, **settings)

    monkeypatch.setattr(cells, "lit_pref", counted)
    real_code_dpo.main()
    assert commands == ["fit", "evaluate", "evaluate"] * 4
    table = tmp_path / "real_code_dpo.csv"
    rows = cells.rows(table)
    assert [row["arm"] for row in rows] == ["start", "rft", "dpo", "dpo_budget"]
    start, dpo = rows[0], rows[2]
    counts = json.loads(start["train"])
    assert start["steps"] == "0" and float(start["validation/chosen_fall"]) == 0
    assert counts["problems"] == 40 and counts == json.loads(dpo["train"]) and int(dpo["steps"]) > 0
    assert len(start["mbpp/passed"]) == 1 + 10
    assert float(start["mbpp/pass@1"]) == pytest.approx(start["mbpp/passed"].count("1") / 10)
    # A row that is lost is made again of what its cell left, and nothing is run twice.
    commands.clear()
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    real_code_dpo.main()
    assert commands == [] and cells.rows(table) == rows
    text = real_code_dpo_figures.table(rows)
    assert "| DPO + budget | 1 |" in text and "40 problems" in text


def _real_code_dpo(folder: Path) -> list[str]:
    """Its command line on the embedded world."""
    evaluation = {"class_path": "PassAtK", "init_args": {"task": {"class_path": "CodeTask"}, "problems": 10}}
    measured = {"evaluations": [evaluation, {"class_path": "PairAccuracy"}]}
    callbacks = json.dumps([{"class_path": "BeforeAfter", "init_args": measured}])
    command = ["real_code_dpo", "--model", "embedded:coder", "--config", "configs/dpo.yaml", "--dtype", "float32"]
    command += ["--seeds", "0", "--quick", "--results", str(folder), "--runs_folder", str(folder / "runs")]
    return [*command, "--", f"--trainer.callbacks={callbacks}", "--data.batch_size=4"]


def test_codepmp_of_pretrained_models_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import cells, real_codepmp, real_codepmp_figures
    from tests.tasks.published.test_gsm8k_solutions import row, written

    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    solutions = written(tmp_path / "solutions.jsonl", [row(number, number % 5) for number in range(60)])
    recipe = ["--config", "configs/synthesize/code_pairs.yaml", "--source.limit", "40"]
    recipe += ["--construction", "MutatedRejected"]  # embedded models write no pairs of real docstrings
    monkeypatch.setattr(real_codepmp, "CODE_PAIRS", recipe)
    few = ["--data.validation_size", "2", "--data.batch_size", "4"]
    monkeypatch.setattr(real_codepmp, "PRETRAINING", [*real_codepmp.PRETRAINING, *few])
    command = ["real_codepmp", "--model", "embedded:coder-weak", "--strong", "embedded:coder-strong"]
    command += ["--solutions", solutions, "--sizes", "12", "--seeds", "0", "--dtype", "float32"]
    command += ["--results", str(tmp_path), "--runs_folder", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", command)
    real_codepmp.main()
    without, with_pmp = cells.rows(tmp_path / "real_codepmp.csv")
    # of the file's 60 questions each fifth has no right solution, and each number of right ones from 0 to 4 occurs
    questions = len(without["best"]) - 1
    assert questions == len(GSM8KSolutions(solutions).solved("test")) and without["mean"] == with_pmp["mean"]
    marks = [int(mark) for mark in without["ranked"][1:]]
    assert all(right <= of and of in (3, 4) for right, of in zip(marks[::2], marks[1::2], strict=True))
    assert int(with_pmp["pretraining/pairs"]) > 4 and not without["pretraining/pairs"]
    table = real_codepmp_figures.table([without, with_pmp])
    assert "| 12 | with PMP | 1 |" in table and "Pretraining, once" in table


def test_a_majority_shares_its_vote_between_answers_of_equally_many() -> None:
    solutions = [Solution("?", f"so\nA: {answer}", answer == 7) for answer in (7, 7, 8, 9)]
    assert majority(solutions) == 1.0  # two for 7, which is right
    assert majority([*solutions, Solution("?", "A: 8", False)]) == 0.5  # two for 7, two for 8
    assert majority(solutions[1:]) == pytest.approx(1 / 3)  # one each
    assert majority([Solution("?", "no answer", False)]) == 0.0
