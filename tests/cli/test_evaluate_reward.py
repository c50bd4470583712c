"""`lit-pref evaluate --recipe reward`: from a folder or a checkpoint to figures with their intervals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from lit_pref.cli.main import main
from lit_pref.metrics import expected_calibration_error
from lit_pref.models import LoRA, export_reward_model
from lit_pref.modules import RewardFinetuneModule
from lit_pref.rewards.learned import Candidates, score

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "configs/evaluate/best_of_n.yaml", ROOT / "configs/evaluate/reward_pairs.yaml"]
ROWS = [{"prompt": f"# {i}\n", "chosen": f"x = {i}", "rejected": "y + " * (i % 4) + "1"} for i in range(20)]
PAIRS = ["--evaluations", "PairAccuracy", "--evaluations.pairs", "pairs.jsonl"]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.fixture
def trained() -> RewardFinetuneModule:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return RewardFinetuneModule("embedded:coder", head_std=1.0)


@pytest.fixture
def folder(trained: RewardFinetuneModule) -> str:
    export_reward_model(trained.model, trained.score_head, trained.tokenizer, "my-model")
    return "my-model"


def run(*arguments: str) -> dict[str, Any]:
    main(["evaluate", "--recipe", "reward", *arguments, "--output", "out"])
    return json.loads(Path("out", "results.json").read_text())


def saved(module: RewardFinetuneModule, name: str = "last.ckpt") -> str:
    """A checkpoint as a run writes it."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=0, barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(name)
    return name


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--recipe", "reward", *arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_pairs_of_a_file(folder: str, trained: RewardFinetuneModule, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("--reward_model", folder, *PAIRS, "--calibration_bins", "4")
    sides = [Candidates(row["prompt"], (row["chosen"], row["rejected"])) for row in ROWS]
    chosen, rejected = torch.stack(score(trained, sides)).T
    margin, figures = chosen - rejected, found["figures"]
    assert figures["pair_accuracy"]["mean"] == pytest.approx((margin > 0).double().mean().item())
    assert figures["pair_accuracy"]["low"] < figures["pair_accuracy"]["mean"] < figures["pair_accuracy"]["high"]
    assert figures["nll"]["mean"] == pytest.approx(-torch.sigmoid(margin).log().mean().item(), rel=1e-5)
    assert figures["brier"]["mean"] == pytest.approx((1 - torch.sigmoid(margin)).square().mean().item(), rel=1e-5)
    assert found["calibration"]["ece"] == pytest.approx(expected_calibration_error(margin, 4).item(), abs=1e-5)
    assert figures["margin"]["n"] == 20 and found["reward_model"] == folder and found["append_eos"] is True
    assert found["evaluations"][0] | {"class": "PairAccuracy", "pairs": "pairs.jsonl"} == found["evaluations"][0]
    assert {len(found[key]) for key in ("weights", "score_head", "tokenizer")} == {32}
    shown = capsys.readouterr().out
    assert "pair_accuracy" in shown and "ece" in shown and "results: out" in shown


def test_a_checkpoint_is_the_model_that_it_holds(folder: str, trained: RewardFinetuneModule) -> None:
    of_folder = run("--reward_model", folder, *PAIRS)
    Path("out/results.json").unlink()
    of_checkpoint = run("--checkpoint", saved(trained), *PAIRS)
    assert of_checkpoint["score_head"] == of_folder["score_head"]
    for name, bounds in of_folder["figures"].items():
        assert of_checkpoint["figures"][name] == pytest.approx(bounds, abs=1e-5)
    assert of_checkpoint["checkpoint"] == "last.ckpt" and "reward_model" not in of_checkpoint


def test_a_checkpoint_says_how_responses_end_and_what_is_adapted() -> None:
    module = RewardFinetuneModule("embedded:coder", head_std=1.0, append_eos=False, adapter=LoRA(r=2))
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    found = run("--checkpoint", saved(module), *PAIRS)
    sides = [Candidates(row["prompt"], (row["chosen"], row["rejected"])) for row in ROWS]
    chosen, rejected = torch.stack(score(module, sides)).T
    assert found["append_eos"] is False
    assert found["figures"]["margin"]["mean"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-5)
    assert run_anew("--checkpoint", "last.ckpt", "--append_eos", "true", *PAIRS)["append_eos"] is True


def run_anew(*arguments: str) -> dict[str, Any]:
    Path("out/results.json").unlink()
    return run(*arguments)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_run(config: Path, folder: str) -> None:
    first = config.read_text().splitlines()[0]
    assert first == f"# lit-pref evaluate --config {config.relative_to(ROOT)} --reward_model runs/reward/my-model"
    written = yaml.safe_load(config.read_text())
    for evaluation in written["evaluations"]:
        arguments = evaluation["init_args"]
        arguments |= {key: 6 for key in ("problems", "questions", "count") if key in arguments}
        if "n" in arguments:
            arguments |= {"n": [1, 4], "samples": 4}
    Path("small.yaml").write_text(yaml.safe_dump(written))
    main(["evaluate", "--config", "small.yaml", "--reward_model", folder, "--output", "out"])
    figures = json.loads(Path("out/results.json").read_text())["figures"]
    assert {bounds["n"] for bounds in figures.values()} == {6}
    if config.stem == "best_of_n":
        assert figures.keys() == {"best_of_n/1", "best_of_n/4", "oracle/1", "oracle/4"}
        # one sample is as good as its own ceiling, of several no pick is above it
        assert figures["best_of_n/1"]["mean"] == pytest.approx(figures["oracle/1"]["mean"])
        assert figures["best_of_n/4"]["mean"] <= figures["oracle/4"]["mean"]
    else:
        assert {"reasoning/pair_accuracy", "reasoning/brier", "deduction/choice_accuracy"} <= figures.keys()


def test_mistakes_are_named(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (PAIRS, "give --reward_model or --checkpoint, got neither of them"),
        (["--reward_model", folder, "--checkpoint", "x", *PAIRS], "give --reward_model or --checkpoint, got both"),
        (["--reward_model", "embedded:coder", *PAIRS], "--reward_model: 'embedded:coder' holds no score head"),
        (["--checkpoint", "absent.ckpt", *PAIRS], "--checkpoint: no file absent.ckpt"),
        (["--reward_model", folder, "--evaluations", "PairAccuracy"], "give it --evaluations.pairs here"),
        (
            ["--reward_model", folder, "--evaluations", "PassAtK", "--evaluations.task", "CodeTask"],
            "take --recipe pass_at_k",
        ),
        (["--reward_model", folder, "--evaluations", "[]"], "--evaluations: expected at least one"),
        (["--reward_model", folder, *PAIRS, "--calibration_bins", "0"], "--calibration_bins: must be >= 1, got 0"),
        (["--reward_model", folder, "--evaluations", "PairAcuracy"], "PairAccuracy"),
        (["--reward_model", folder], "evaluations"),
    ):
        assert message in refused(capsys, *arguments), arguments


def test_a_policy_s_checkpoint_scores_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "lit_pref": {"policy": "embedded:coder"}}, "policy.ckpt")
    assert "policy.ckpt is a policy, which scores nothing" in refused(capsys, "--checkpoint", "policy.ckpt", *PAIRS)


def test_results_are_not_overwritten(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("--reward_model", folder, *PAIRS)
    message = refused(capsys, "--reward_model", folder, *PAIRS, "--output", "out")
    assert "--output: out holds the results of another evaluation" in message


def test_figures_of_one_name_need_a_prefix(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    twice = {"class_path": "PairAccuracy", "init_args": {"pairs": "pairs.jsonl"}}
    Path("twice.yaml").write_text(yaml.safe_dump({"evaluations": [twice, twice]}))
    message = refused(capsys, "--config", "twice.yaml", "--reward_model", folder)
    assert (
        "PairAccuracy gives 'pair_accuracy', which another evaluation gives too; give one of them a prefix" in message
    )


def test_the_recipe_stands_in_a_file_or_an_option(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--recipe", "rewards"])
    assert "there is no recipe 'rewards'; did you mean 'reward'?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--recipe", "reward", "--help"])
    assert stopped.value.code == 0 and "--calibration_bins" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "--samples_file" in capsys.readouterr().out
