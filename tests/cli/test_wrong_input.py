"""What a user gets wrong gets exit status 2 and one line that names the place, what stood there, and the mend."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_pref.cli.main import main
from lit_pref.models.causal_lm import EMBEDDED_FOLDER

CONFIG = Path(__file__).parents[2] / "configs" / "dpo.yaml"
GOOD = [{"prompt": f"def f{i}(x):\n", "chosen": f"    return x + {i}\n", "rejected": "    pass\n"} for i in range(12)]
LONG = {"prompt": "a " * 200, "chosen": "b", "rejected": "c"}
WORDS = ("--model", "DPOModule", "--model.policy", "embedded:coder", "--model.objective", "DPO")


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a command leaves behind lies in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")


def pairs_file(*rows: object, name: str = "pairs.jsonl") -> str:
    """Rows as JSON Lines; a str is written as it is."""
    Path(name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return name


def fit(*arguments: str) -> list[str]:
    return ["fit", "--runs_folder=runs", "--run_name=run", *arguments]


def fit_pairs(source: str, *more: str) -> list[str]:
    return fit("--data", "PairsDataModule", "--data.train", source, *WORDS, "--trainer.log_every_n_steps=1", *more)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    def run(arguments: list[str]) -> str:
        """The one line that a command ends with."""
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        messages = [line for line in shown.err.splitlines() if line.startswith("lit-pref: error: ")]
        assert len(messages) == 1 and shown.err.endswith(messages[0] + "\n")
        return messages[0].removeprefix("lit-pref: error: ")

    return run


Refused = Callable[[list[str]], str]


# --- files and rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a", "chosen": "b"}, ['the key "rejected"', "prompt, chosen", "ename"]),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, ['"chosen" and "rejected" are equal']),
        ({"prompt": "a", "chosen": 5, "rejected": "b"}, ['expected text under "chosen"', "int '5'"]),
        ('{"prompt": "a", "chosen": ', ["broken JSON", "one whole object on each line"]),
    ],
    ids=["no rejected", "equal sides", "no string", "broken JSON"],
)
def test_a_bad_row_is_named_with_file_and_line(row: object, expected: list[str], refused: Refused) -> None:
    message = refused(fit_pairs(pairs_file(*GOOD[:6], row, *GOOD[6:])))
    assert message.startswith("pairs.jsonl:7: ")
    for words in expected:
        assert words in message


def test_a_missing_file_suggests_a_near_one(refused: Refused) -> None:
    pairs_file(*GOOD)
    assert refused(fit_pairs("pair.jsonl")) == "pair.jsonl: no such file or folder; did you mean pairs.jsonl?"


def test_an_empty_file(refused: Refused) -> None:
    assert refused(fit_pairs(pairs_file())).startswith("pairs.jsonl: holds no row")


def test_bad_rows_are_skipped_counted_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    source = pairs_file(*GOOD, {"prompt": "a", "chosen": "b"}, "{", {"prompt": "a", "chosen": "b"})
    main(fit_pairs(source, "--data.on_bad_row=skip", "--trainer.max_steps=1"))
    assert "pairs.jsonl: 12 rows; skipped rows: 2 missing key, 1 broken JSON" in capsys.readouterr().out
    written = json.loads(Path("runs/DPOModule/run/skipped_rows_train.json").read_text())
    assert (written["total"], written["counts"]) == (3, {"missing key": 2, "broken JSON": 1})
    assert [message.split(": ")[0] for message in written["first_messages"]] == [
        f"pairs.jsonl:{n}" for n in (13, 14, 15)
    ]


def test_long_prompts_are_dropped_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    limit = "--data.limits.max_prompt_length=50"
    main(fit_pairs(pairs_file(*GOOD, LONG), limit, "--data.validation_size=0", "--trainer.max_steps=1"))
    assert "12 pairs" in (shown := capsys.readouterr().out) and "'dropped_long_prompt': 1" in shown


def test_nothing_but_long_prompts(refused: Refused) -> None:
    message = refused(fit_pairs(pairs_file(LONG, LONG, LONG), "--data.limits.max_prompt_length=50"))
    assert "no pair of pairs.jsonl" in message and "'dropped_long_prompt': 3" in message


def test_a_long_prompt_is_an_error_where_that_is_asked_for(refused: Refused) -> None:
    limits = ["--data.limits.max_prompt_length=50", "--data.limits.overlong=error"]
    message = refused(fit_pairs(pairs_file(*GOOD, LONG), *limits))
    assert "max_prompt_length is 50" in message and '"drop" or "truncate"' in message


# --- the configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["data: {init_args: {samples: 4}}", "model: {init_args: {compute: [1]}}"])
def test_a_value_in_the_place_of_a_group_of_keys_is_refused_in_a_file_too(of: str, refused: Refused) -> None:
    Path("old.yaml").write_text(of)
    message = refused(fit("--config", "dpo", "--config", "old.yaml"))
    assert "old.yaml: " in message and ": expected keys and values (" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.batchsize=3"], "data: there is no option 'batchsize'; did you mean 'batch_size'?"),
        (["--modle.objective.beta=3"], "there is no option 'modle.objective.beta'; did you mean 'model'?"),
        (["--model=DPOModul"], "model: there is no class 'DPOModul'; did you mean 'DPOModule'?"),
        (["--model.objective=Simpo"], "model.objective: there is no class 'Simpo'; did you mean 'SimPO'?"),
        (["--trainer.callbacks=BeforeAftr"], "there is no class 'BeforeAftr'; did you mean 'BeforeAfter'?"),
        (["--model.objective.beta=much"], "model.objective.beta: expected float, got much"),
        (["--model=PairsDataModule"], "model: PairsDataModule is no LightningModule: expected DPOModule, "),
        (["--model.objective=3"], "model.objective: expected PairObjective (DPO, DPOPositive, Hinge, "),
        (["--model=torch.nn.Linear"], "model: Linear is no LightningModule: expected DPOModule"),
        (["--model.objective=null"], "model: objective is missing: expected PairObjective (DPO, "),
        (["--model.objective.beta=-1"], "DPO: beta must be > 0, got -1.0"),
        (["--model.scheduler.warmup=2"], "model.scheduler: warmup must be in [0, 1], got 2.0"),
        (["--model.optimizer=null"], "model.optimizer: expected a class such as torch.optim.AdamW, got null"),
        (["--model.optimizer.lr=.inf"], "model.optimizer: lr must be finite, got inf"),
        (["--model=null"], "--model is missing, as in: lit-pref fit --config dpo"),
        (["--batch_size=3"], "there is no option 'batch_size'; did you mean 'data.batch_size'?"),
        (["--sampling.temperature=3"], "there is no option 'sampling' here: it is one of lit-pref evaluate"),
        (["--seed_everything=-5"], "seed_everything: expected 0 to 4294967295, got -5"),
        (["--trainer=null"], "trainer: expected keys and values (accelerator, "),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches: must be >= 1 and finite, got 0"),
        (["--trainer.gradient_clip_val=.nan"], "trainer.gradient_clip_val: must be >= 0 and finite, got nan"),
        (["--ckpt_path="], "--ckpt_path: expected a checkpoint, as runs/.../checkpoints/last.ckpt, got nothing"),
        (["--model.help=nope"], "model.help: there is no class 'nope'; there are: DPOModule, "),
        (["--data.batch_size=null"], "ExecutionPairsDataModule: batch_size: expected int, got null"),
        (["--trainer.max_epochs"], "trainer.max_epochs: expected a value, got nothing"),
        (["--model.regularizer.budget=1"], "model.regularizer: name the Regularizer before its arguments"),
        (["--model.optimizer.lr=fast"], "model.optimizer.lr: expected float or Tensor, got fast"),
        (["--model.optimizer.lr=-1"], "model.optimizer: Invalid learning rate: -1.0"),
        (["--model.optimizer=torch.optim.AdamV"], "there is no class 'torch.optim.AdamV'; did you mean"),
        (["--trainer.max_epochs=many"], "trainer.max_epochs: expected int or null, got many"),
        (["--trainer.accelerator=cuda", "--trainer.devices=99"], "cuda"),
        (["--data.strategy=best"], "expected one of 'random', 'best_vs_worst', 'length_matched', got best"),
        (["--data.samples.each=1"], "each must be >= 2 to hold a passing and a failing sample, got 1"),
        (["--data.samples.sampling.temperature=-1"], "temperature must be >= 0, got -1.0"),
        (["--ckpt_path=none.ckpt"], "--ckpt_path: no file none.ckpt; a run keeps its checkpoints in runs/"),
    ],
    ids=lambda value: value[0].removeprefix("--") if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_option(arguments: list[str], expected: str, refused: Refused) -> None:
    assert expected.lower() in refused(fit("--config", str(CONFIG), *arguments)).lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: [unclosed\n  class_path: {\n", ["wrong.yaml: line 2, column 13: no valid YAML"]),
        ("- a\n- b\n", ["wrong.yaml: expected keys and values", "got ['a', 'b']"]),
        ("", ["wrong.yaml: expected keys and values such as seed_everything: 1, got nothing"]),
        ("model: \xff", ["wrong.yaml: expected YAML in UTF-8, got other bytes"]),
        ("model: &a [*a]", ["wrong.yaml: expected values, got an alias that stands for itself"]),
        ("task: CodeTask", ["there is no option 'task' here: it is one of lit-pref evaluate"]),
        (CONFIG.read_text().replace("class_path: DPO,", "class_path: DPOO,"), ["wrong.yaml: ", "did you mean 'DPO'?"]),
        (CONFIG.read_text().replace("\ntrainer:", "\ntrianer:"), ["'trianer.", "did you mean 'trainer.max_epochs'?"]),
    ],
    ids=["no YAML", "a list", "empty", "bytes", "a circle", "another command's", "misspelt class", "misspelt key"],
)
def test_a_wrong_configuration_file(text: str, expected: list[str], refused: Refused) -> None:
    Path("wrong.yaml").write_text(text, encoding="latin-1")
    message = refused(fit("--config", "wrong.yaml"))
    for words in expected:
        assert words in message


@pytest.mark.parametrize("command", ["fit", "evaluate", "synthesize", "export"])
def test_a_missing_configuration_file(command: str, refused: Refused) -> None:
    Path("nine.yaml").write_text("a: 1")
    Path("folder").mkdir()
    assert refused([command, "--config", "none.yaml"]) == "--config: none.yaml does not exist; did you mean nine.yaml?"
    assert refused([command, "--config=folder"]) == "--config: folder is a folder, no YAML file"
    assert refused([command, "--config"]).startswith("--config: expected a YAML file or a name, as --config dpo")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("evaluate", "--task is missing, as in: lit-pref evaluate --task HumanEval --policy my-model"),
        ("synthesize", "--output is missing, as in: lit-pref synthesize --output my-pairs --task HumanEval"),
        ("export", "--checkpoint and --output are missing, as in: lit-pref export --checkpoint runs/.../last.ckpt"),
        ("fit", "--data and --model are missing, as in: lit-pref fit --config dpo"),
        ("validate", "--data and --model are missing, as in: lit-pref validate --config dpo --ckpt_path"),
    ],
)
def test_a_command_alone(command: str, missing: str, refused: Refused) -> None:
    assert refused([command]).startswith(missing)


def test_a_file_that_is_no_checkpoint(refused: Refused) -> None:
    source = pairs_file(*GOOD)
    expected = f"{source} is no checkpoint"
    assert expected in refused(fit("--config", str(CONFIG), f"--ckpt_path={source}"))
    assert expected in refused(["export", "--checkpoint", source, "--output", "out"])
    assert not Path("out").exists()


def test_a_model_folder_without_a_tokenizer(refused: Refused) -> None:
    shutil.copytree(EMBEDDED_FOLDER / "coder", "model")
    message = refused(fit_pairs(pairs_file(*GOOD), "--model.policy", "model"))
    assert message.startswith("'model' holds no tokenizer: expected tokenizer.json") and "model.safetensors" in message


@pytest.mark.parametrize("command", ["evaluate", "fit"])
def test_an_output_that_cannot_be_written(command: str, refused: Refused) -> None:
    source = pairs_file(*GOOD)
    arguments = {
        "evaluate": ["--task=CodeTask", "--problems=2", "--policy=embedded:coder-weak", f"--output={source}/out"],
        "fit": [*fit_pairs(source)[1:], f"--runs_folder={source}"],
    }[command]
    message = refused([command, *arguments])
    assert f"{source}" in message and "is no folder that can be written: " in message


# --- Lightning's features -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "feature",
    [["--trainer.barebones=true"], ["--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:01:00:00"]],
    ids=lambda feature: feature[0],
)
def test_a_feature_of_the_trainer(feature: list[str]) -> None:
    main(fit_pairs(pairs_file(*GOOD), "--trainer.max_steps=1", "--trainer.enable_progress_bar=false", *feature))
    assert json.loads(Path("runs/DPOModule/run/summary.json").read_text())["optimizer_steps"] == 1


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (["BackboneFinetuning"], "BackboneFinetuning cannot work here: a policy has no backbone apart"),
        (["ModelCheckpoint", "--trainer.callbacks.save_top_k=3"], "ModelCheckpoint: ModelCheckpoint(save_top_k=3"),
        (
            ["EarlyStopping", "--trainer.callbacks.monitor=validation/lss"],
            "metric `validation/lss` which is not available",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_feature_that_cannot_be_had(feature: list[str], expected: str, refused: Refused) -> None:
    callbacks = [f"--trainer.callbacks={feature[0]}", *feature[1:]]
    assert expected in refused(fit_pairs(pairs_file(*GOOD), "--trainer.max_epochs=1", *callbacks))


# --- a full disk --------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_is_finished(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # 30 held-out problems are one shard, 300 training problems two; the disk is full at the last one.
    sizes = [
        "--data.train_size=300",
        "--data.validation_size=30",
        "--data.samples.each=4",
        "--data.samples.sampling.max_new_tokens=48",
    ]
    arguments = fit("--config", str(CONFIG), *sizes, "--trainer.max_steps=1", "--trainer.log_every_n_steps=1")
    arguments += ["--trainer.callbacks=null"]
    flush, shards = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal shards
        shards += ".part-" in str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if shards >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        message = refused(arguments)
    assert "the disk is full" in message and "run the same command again" in message
    finished = {path: path.stat().st_mtime_ns for path in Path("cache").rglob("part-*.parquet")}
    assert len(finished) == 2 and not list(Path("cache").rglob("*.tmp"))

    main(arguments)
    shown = capsys.readouterr().out
    assert "Sampling and running 300 train problems" in shown and "held_out" not in shown
    assert "Sampling and running 30 test problems" not in shown
    assert len(list(Path("cache").rglob("part-*.parquet"))) == 3
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
