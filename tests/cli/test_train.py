"""The command as a user meets it: help at once, a complete run folder, resuming, validating, exporting."""

import csv
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import docstring_parser
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch.loggers import Logger
from transformers import AutoModelForCausalLM, AutoTokenizer

import lit_pref.datamodules
import lit_pref.evaluation
import lit_pref.losses
import lit_pref.modules
from lit_pref.callbacks import BeforeAfter
from lit_pref.cli.main import main
from lit_pref.data.formats.pairs import PairKeys
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.evaluation import PassAtK
from lit_pref.losses import DPO, IPO, BradleyTerry, ChosenNLL, DPOPositive, Hinge, LikelihoodBudget, SimPO
from lit_pref.models import LoRA, adapter_state, attach, export_model, load_causal_lm, load_tokenizer
from lit_pref.modules import Compute, SFTModule
from lit_pref.sandbox import IsolatedSandbox
from lit_pref.tasks import CodeTask
from lit_pref.types import Sampling

ROOT = Path(__file__).parents[2]
SMALL_RUN = """\
seed_everything: 3
model:
  class_path: DPOModule
  init_args:
    policy: embedded:coder
    objective: {class_path: DPO, init_args: {beta: 0.1}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
data:
  class_path: ExecutionPairsDataModule
  init_args:
    train_size: 40
    samples: {each: 4}
    validation_size: 30
    test_size: 20
    batch_size: 4
trainer:
  max_epochs: 2
  max_steps: 2
  log_every_n_steps: 1
  callbacks:
    - class_path: BeforeAfter
      init_args:
        evaluations:
          - class_path: PassAtK
            init_args: {task: {class_path: CodeTask}, problems: 20}
          - class_path: PairAccuracy
"""


def fit_arguments(folder: Path, name: str, *more: str) -> list[str]:
    return ["fit", "--config", str(folder / "small.yaml"), f"--runs_folder={folder}/runs", f"--run_name={name}", *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration and its finished run `first`, whose output lies in `first.txt`; the cache is filled."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.yaml").write_text(SMALL_RUN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "LIT_PREF_"))}
    # A login of the person who runs the tests is out of sight, and there is nobody to answer a prompt.
    environment |= {"LIT_PREF_CACHE": str(folder / "cache"), "NETRC": str(folder / "netrc"), "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "lit_pref.cli.main", *fit_arguments(folder, "first")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=folder, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "first.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For runs in this process: the filled cache, no Weights & Biases."""
    monkeypatch.setenv("LIT_PREF_CACHE", str(folder / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return folder


# --- help ---------------------------------------------------------------------------------------------------------


def test_help_is_instant_and_lists_what_there_is() -> None:
    script = (
        "import sys; from lit_pref.cli.main import main; main(['--help']);"
        "heavy = {'torch', 'lightning', 'transformers', 'wandb', 'jsonargparse', 'rich'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("fit", "validate", "export", "DPOModule", "SFTModule", "SimPO", "LikelihoodBudget", "embedded:coder"):
        assert name in done.stdout


def test_help_names_all_public_classes(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    for package in (lit_pref.datamodules, lit_pref.evaluation, lit_pref.losses):
        for name in package.__all__:
            item = getattr(package, name)
            configured = inspect.isclass(item) and not inspect.isabstract(item) and not issubclass(item, tuple)
            if configured and item is not lit_pref.losses.LinearHead:  # a head as losses compute with it
                assert name in shown


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.strip() == "0.1.0"


def test_unknown_command_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fitt"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "lit-pref: error: no command 'fitt'; did you mean 'fit'?\n"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["fit", "--help"], "--trainer.max_epochs"), (["fit", "--model.help", "DPOModule"], "--model.objective")],
)
def test_help_of_commands_and_classes(arguments: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    assert shown in capsys.readouterr().out


CONFIGURED = [
    *(getattr(lit_pref.modules, name) for name in ("DPOModule", "SFTModule", "RewardFinetuneModule", "WarmupCosine")),
    *(getattr(lit_pref.datamodules, name) for name in lit_pref.datamodules.__all__),
    lit_pref.modules.WarmupStableDecay,
    *(BradleyTerry, DPO, IPO, SimPO, Hinge, DPOPositive, ChosenNLL, LikelihoodBudget, LoRA, Compute),
    *(PassAtK, CodeTask, BeforeAfter, Sampling, LengthLimits, PairKeys, IsolatedSandbox),
]


@pytest.mark.parametrize("configured", CONFIGURED, ids=lambda item: item.__name__)
def test_help_describes_every_argument(configured: type) -> None:
    said = [docstring_parser.parse(part.__doc__ or "") for part in configured.__mro__]  # by a constructor's own class
    described = {parameter.arg_name for each in said for parameter in each.params}
    assert described >= inspect.signature(configured).parameters.keys()


# --- the resolved configuration -----------------------------------------------------------------------------------


def resolved(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    with pytest.raises(SystemExit):
        main([*arguments, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_options_and_later_configurations_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text(SMALL_RUN)
    (tmp_path / "later.yaml").write_text("trainer: {max_epochs: 7}\n")
    later = ["--config", str(tmp_path / "later.yaml")]
    config = resolved([*fit_arguments(tmp_path, "x"), *later, "--model.objective.beta", "0.3"], capsys)
    assert config["trainer"]["max_epochs"] == 7
    assert config["trainer"]["max_steps"] == 2  # of the first file, which the second leaves alone
    assert config["model"]["init_args"]["objective"]["init_args"]["beta"] == 0.3


def test_an_objective_is_swapped_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text(SMALL_RUN)
    swap = ["--model.objective", "SimPO", "--model.objective.margin", "0.5"]
    objective = resolved([*fit_arguments(tmp_path, "x"), *swap], capsys)["model"]["init_args"]["objective"]
    assert objective["class_path"] == "lit_pref.losses.SimPO"
    assert objective["init_args"]["margin"] == 0.5


# --- a run --------------------------------------------------------------------------------------------------------


class Recorder(Logger):
    """Keeps the hyperparameters that it is given."""

    name, version = "recorder", "0"

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def log_hyperparams(self, params: Any, *arguments: Any, **more: Any) -> None:
        self.kept.append(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...


def test_loggers_get_the_resolved_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("lit_pref.cli.train.run_loggers", lambda *arguments: [recorder])
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.yaml").write_text(SMALL_RUN)
    main([*fit_arguments(tmp_path, "x"), "--model.objective.beta", "0.3", "--trainer.callbacks", "null"])
    (config,) = recorder.kept
    assert config["model"]["init_args"]["objective"]["init_args"]["beta"] == 0.3
    assert config == yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())


def test_run_folder_is_complete(folder: Path) -> None:
    run = folder / "runs" / "small" / "first"
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "checkpoints",
        "wandb",
    }
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert len(list((run / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["seed"] == 3 and summary["optimizer_steps"] == 2
    assert summary["before"].keys() == summary["after"].keys() == {
        "pass@1", "pair_accuracy", "logps/chosen", "logps/rejected"
    }  # fmt: skip
    for cost in ("wall_seconds", "tokens_per_second", "peak_memory_bytes"):
        assert summary[cost] > 0
    assert summary["metrics"]["train/loss"] > 0
    assert {"python", "torch", "lightning", "transformers"} <= summary["versions"].keys()
    with (run / "metrics.csv").open() as file:
        assert {row["step"] for row in csv.DictReader(file)} >= {"0", "1"}


def test_terminal_shows_the_table_and_no_noise(folder: Path) -> None:
    shown = (folder / "first.txt").read_text()
    for expected in (
        "30 validation problems x 4",
        "pairs",
        "held out, with 95% intervals",
        "pass@1",
        "chosen fall",
        "run: ",
    ):
        assert expected in shown
    assert "logged offline; to upload: wandb login && wandb sync" in shown
    for noise in ("does not have many workers", "Tip:", "TPU", "LeafSpec", "eval mode", "Seed set", "Traceback"):
        assert noise not in shown


def test_saved_configuration_runs_again_from_the_cache(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = here / "runs" / "small" / "first" / "config.yaml"
    reference = sorted((here / "cache" / "reference").iterdir())
    main(["fit", "--config", str(saved), "--run_name=again"])
    shown = capsys.readouterr().out
    assert "Sampling" not in shown and "pass@1" in shown
    assert sorted((here / "cache" / "reference").iterdir()) == reference  # found, not scored again
    first, again = (
        json.loads((here / "runs" / name / "summary.json").read_text()) for name in ("small/first", "config/again")
    )
    assert first["data_fingerprints"] == again["data_fingerprints"]
    assert first["after"] == pytest.approx(again["after"], abs=1e-4)


def test_resumes_in_its_own_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit_arguments(here, "resumed", "--trainer.max_steps=1"))
    run = here / "runs" / "small" / "resumed"
    before = json.loads((run / "summary.json").read_text())["before"]
    main(fit_arguments(here, "unused", f"--ckpt_path={run}/checkpoints/last.ckpt"))
    assert not (here / "runs" / "small" / "unused").exists()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["optimizer_steps"] == 2
    assert summary["before"] == before  # of the untrained policy, not of the checkpoint


@pytest.mark.parametrize(("command", "split"), [("validate", "validation"), ("test", "test")])
def test_measures_a_checkpoint(command: str, split: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = here / "runs" / "small" / "first" / "checkpoints" / "last.ckpt"
    place = [f"--runs_folder={here}/measured", f"--run_name={command}"]
    main([command, "--config", str(here / "small.yaml"), "--ckpt_path", str(checkpoint), *place])
    shown = capsys.readouterr().out
    assert f"{split}/loss" in shown and f"{split}, 20 items" in shown
    assert (here / "measured" / "small" / command / "metrics.csv").is_file()
    trained = yaml.safe_load((here / "runs" / "small" / "first" / "config.yaml").read_text())
    assert trained["ckpt_path"] is None  # measuring leaves the run's own record alone


def test_predicts_every_held_out_pair(here: Path) -> None:
    checkpoint = here / "runs" / "small" / "first" / "checkpoints" / "last.ckpt"
    place = [
        f"--runs_folder={here}/measured",
        "--run_name=predict",
        "--data.test_size=0",
    ]  # so that it is of the validation pairs
    main(["predict", "--config", str(here / "small.yaml"), "--ckpt_path", str(checkpoint), *place])
    table = pq.read_table(here / "measured" / "small" / "predict" / "predictions.parquet")
    assert table["row"].to_pylist() == list(range(len(table)))
    # The mean over all pairs is the figure that the run ended with.
    summary = json.loads((here / "runs" / "small" / "first" / "summary.json").read_text())
    chosen = table["logps/chosen"].to_pylist()
    assert sum(chosen) / len(chosen) == pytest.approx(summary["after"]["logps/chosen"], abs=1e-4)


def test_export_opens_in_transformers_with_the_same_logits(here: Path) -> None:
    checkpoint = here / "runs" / "small" / "first" / "checkpoints" / "last.ckpt"
    output = here / "exported"
    main(["export", "--checkpoint", str(checkpoint), "--output", str(output)])
    model = AutoModelForCausalLM.from_pretrained(output).eval()
    tokenizer = AutoTokenizer.from_pretrained(output)
    input_ids = torch.tensor([tokenizer("def f(x):")["input_ids"]])
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    trained = load_causal_lm("embedded:coder")
    start = trained(input_ids).logits
    trained.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    torch.testing.assert_close(model(input_ids).logits, trained(input_ids).logits)
    assert not torch.equal(model(input_ids).logits, start)  # two steps at lr 1e-3 did train


def test_an_adapter_trains_is_measured_resumed_and_exported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = ["--config", str(ROOT / "configs/model/lora.yaml"), "--model.adapter.r=2"]
    compute = ["--model.compute.gradient_checkpointing=true", "--trainer.precision=bf16-mixed"]
    main(fit_arguments(here, "lora", *lora, *compute, "--trainer.max_steps=1"))
    checkpoint = here / "runs" / "small" / "lora" / "checkpoints" / "last.ckpt"
    main(fit_arguments(here, "lora", *lora, *compute, f"--ckpt_path={checkpoint}"))
    summary = json.loads((checkpoint.parents[1] / "summary.json").read_text())
    assert summary["optimizer_steps"] == 2 and summary["before"] != summary["after"]
    whole = here / "runs" / "small" / "first" / "checkpoints" / "last.ckpt"
    assert checkpoint.stat().st_size < 0.1 * whole.stat().st_size

    # by hand: the weights of the checkpoint on the base, without this kit's loading
    by_hand = load_causal_lm("embedded:coder")
    attach(by_hand, LoRA(r=2))
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert weights.keys() == {f"model.{name}" for name in adapter_state(by_hand)}
    by_hand.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()}, strict=False)
    input_ids = torch.tensor(
        [AutoTokenizer.from_pretrained(ROOT / "lit_pref/embedded/tokenizer")("def f(x):").input_ids]
    )
    expected = by_hand(input_ids).logits
    assert not torch.equal(expected, load_causal_lm("embedded:coder")(input_ids).logits)

    for option, opened in ((), AutoModelForCausalLM.from_pretrained), (("--adapter_only=true",), over_base):
        output = here / f"exported{len(option)}"
        main(["export", "--checkpoint", str(checkpoint), "--output", str(output), *option])
        torch.testing.assert_close(opened(output).eval()(input_ids).logits, expected, rtol=0, atol=1e-5)
    with pytest.raises(SystemExit):
        main(["export", "--checkpoint", str(whole), "--output", str(here / "nothing"), "--adapter_only=true"])
    assert "was trained without an adapter and holds all weights" in capsys.readouterr().err


def over_base(folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(load_causal_lm("embedded:coder"), folder)


def test_an_adapter_is_not_exported_onto_another_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    export_model(load_causal_lm("embedded:coder-weak"), load_tokenizer("embedded:coder"), base)
    module = SFTModule(str(base), adapter=LoRA(r=2))
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "x.ckpt")
    shutil.rmtree(base)
    export_model(load_causal_lm("embedded:coder-weak", random_init=True), load_tokenizer("embedded:coder"), base)
    with pytest.raises(SystemExit):
        main(["export", "--checkpoint", str(tmp_path / "x.ckpt"), "--output", str(tmp_path / "out")])
    assert f"holds an adapter alone, and {str(base)!r} is no longer the base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_epoch_where_nothing_says_how_long(here: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": f"f{i}", "chosen": " yes", "rejected": " no"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    data = ["--data", "PairsDataModule", f"--data.train={tmp_path}/pairs.jsonl", "--data.validation_size=0"]
    model = ["--model", "DPOModule", "--model.policy", "embedded:coder", "--model.objective", "DPO"]
    place = [f"--runs_folder={tmp_path}", "--run_name=run", "--trainer.log_every_n_steps=1"]
    main(["fit", *data, "--data.batch_size=4", *model, *place])
    run = tmp_path / "DPOModule" / "run"
    assert json.loads((run / "summary.json").read_text())["optimizer_steps"] == 2  # 8 pairs in batches of 4
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 1


# --- errors -------------------------------------------------------------------------------------------------------


def test_errors_are_one_line_and_debug_shows_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--checkpoint", str(tmp_path / "none.ckpt"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("lit-pref: error: --checkpoint: no file ") and error.count("\n") == 1
    with pytest.raises(ValueError, match="no file"):  # the traceback is the interpreter's
        main([*arguments, "--debug"])
