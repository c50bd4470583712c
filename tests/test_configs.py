"""Every shipped configuration: its first line is its command, nothing in it is dropped silently, and it trains."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_pref.cli.main import main

ROOT = Path(__file__).parents[1]
ALL = sorted((ROOT / "configs").rglob("*.yaml"))
# Overlays (a trainer alone, a machine) complete another configuration and cannot run by themselves.
CONFIGS = [path for path in ALL if {"model", "data", "trainer"} <= yaml.safe_load(path.read_text()).keys()]
# What takes models and data of the hub, and what the papers trained GPUs: those and the devices are replaced.
ELSEWHERE = ("paper", "real")
ON_PAPER = ["--model.policy=embedded:coder", "--trainer.precision=32-true", "--trainer.strategy=auto"]
EMBEDDED_TASKS = {
    "HumanEval": "CodeTask",
    "MBPP": "CodeTask",
    "GSM8K": "ReasoningTask",
    "MATH": "ReasoningTask",
    "MathShepherd": "ReasoningTask",
    "GSM8KSolutions": "ReasoningTask",
    "ReClor": "DeductionTask",
    "LogiQA2": "DeductionTask",
}
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))

SMALL = {"train_size": 60, "validation_size": 30, "samples.each": 4, "batch_size": 8}


def missing(written: Any, resolved: Any, at: str = "") -> list[str]:
    """Where a resolved configuration does not hold what was written; classes may stand with their full path."""
    if isinstance(written, Mapping):
        if not isinstance(resolved, Mapping):
            return [f"{at}: {resolved!r}, not {written!r}"]
        return [place for key, value in written.items() for place in missing(value, resolved.get(key), f"{at}.{key}")]
    if isinstance(written, list):
        if not isinstance(resolved, list) or len(resolved) != len(written):
            return [f"{at}: {resolved!r}, not {written!r}"]
        pairs = zip(written, resolved, strict=True)
        return [place for i, (ours, theirs) in enumerate(pairs) for place in missing(ours, theirs, f"{at}[{i}]")]
    named = at.endswith("class_path") and str(resolved).split(".")[-1] == str(written).split(".")[-1]
    return [] if named or resolved == written else [f"{at}: {resolved!r}, not {written!r}"]


def test_a_dropped_or_changed_key_would_be_seen() -> None:
    written = {"a": {"class_path": "DPO", "init_args": {"beta": 0.1}}, "b": [1, {"c": 2}]}
    assert (
        missing(written, {"a": {"class_path": "x.DPO", "init_args": {"beta": 0.1, "d": 3}}, "b": [1, {"c": 2}]}) == []
    )
    assert missing(written, {"a": {"class_path": "x.IPO", "init_args": {"beta": 0.2}}, "b": [1, {}]}) == [
        ".a.class_path: 'x.IPO', not 'DPO'",
        ".a.init_args.beta: 0.2, not 0.1",
        ".b[1].c: None, not 2",
    ]


def test_there_are_configurations() -> None:
    assert {"sft", "dpo", "dpo_budget", "simpo"} <= {path.stem for path in CONFIGS}


@each_config
def test_first_line_is_the_command(config: Path) -> None:
    first = config.read_text().splitlines()[0]
    command = f"lit-pref fit --config {config.relative_to(ROOT)}"
    assert command in first
    assert first == f"# {command}" or first.startswith((f"# {command} --", "# make embedded "))


@each_config
def test_resolved_configuration_holds_what_is_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", str(config), "--print_config"])
    assert exit_.value.code == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert missing(yaml.safe_load(config.read_text()), resolved) == []


FEW = {"problems": 30, "questions": 30, "count": 30, "samples": 4, "n": [1, 2, 4], "max_new_tokens": 64}


def shrunk(value: Any) -> Any:
    """The same evaluations on a few items."""
    if isinstance(value, Mapping):
        return {key: FEW.get(key, shrunk(x)) for key, x in value.items()}
    return [shrunk(x) for x in value] if isinstance(value, list) else value


def embedded(value: Any) -> Any:
    """The same with tasks and samplers of the embedded world."""
    if isinstance(value, Mapping):
        if value.get("class_path") in EMBEDDED_TASKS:
            return {"class_path": EMBEDDED_TASKS[value["class_path"]]}
        inner = {key: "embedded:coder" if key == "sampled_policy" else embedded(x) for key, x in value.items()}
        if "task" in value.get("init_args", {}):  # a data set may be measured whole, which these tasks cannot be
            count = {"MultipleChoiceAccuracy": "questions"}.get(value["class_path"], "problems")
            inner["init_args"] = {count: FEW[count], **inner["init_args"]}
        return inner
    return [embedded(x) for x in value] if isinstance(value, list) else value


def embedded_data(written: Mapping[str, Any], folder: Path) -> list[str]:
    """Options that put the embedded world, or a file of rows, in place of a paper's data."""
    if written["class_path"] in ("TaskPairsDataModule", "ExecutionPairsDataModule"):
        return [f"--data.task={json.dumps(embedded(written['init_args']['task']))}"]
    rows = [{"prompt": f"# add {i}\n", "chosen": "    return x + 1\n", "rejected": "    x\n"} for i in range(160)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"--data.train={folder / 'pairs.jsonl'}"]


# Each of another one's kind, with other sizes or another model: trained by the slow tests.
TWINS = {"code_dpo_codellama", "code_dpo_codeqwen", "codepmp_rm_logiqa2", "codepmp_pmp_qwen2_7b"}
TWINS |= {"coder_strong", "coder_weak", "code_dpo_qwen_0.5b"}


def trained(config: Path) -> Any:
    marks = [pytest.mark.slow] if config.stem in TWINS else []
    return pytest.param(config, id=str(config.relative_to(ROOT / "configs")), marks=marks)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all configurations: many train on the same samples and begin with the same figures."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("config", [trained(config) for config in CONFIGS])
def test_trains_two_steps(
    config: Path,
    tmp_path: Path,
    shared_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("LIT_PREF_CACHE", str(shared_cache))
    written = yaml.safe_load(config.read_text())
    sizes = [f"--data.{key}={SMALL[key]}" for key in SMALL if key.split(".")[0] in written["data"]["init_args"]]
    callbacks = written["trainer"]["callbacks"]
    place = [f"--runs_folder={tmp_path}", "--run_name=run"]
    steps = ["--trainer.max_epochs=2", "--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
    if config.parent.name in ELSEWHERE:
        callbacks = embedded(callbacks)
        steps += [*ON_PAPER, *embedded_data(written["data"], tmp_path)]
    main(
        ["fit", "--config", str(config), *sizes, f"--trainer.callbacks={json.dumps(shrunk(callbacks))}", *steps, *place]
    )
    summary = json.loads((tmp_path / config.stem / "run" / "summary.json").read_text())
    assert (summary["status"], summary["optimizer_steps"], summary["seed"]) == (
        "finished",
        2,
        written["seed_everything"],
    )
    assert summary["before"].keys() == summary["after"].keys()
    assert summary["before"].keys() & {"pass@1", "human_eval/pass@1", "reasoning/pass@1", "pair_accuracy"}
    assert "held out, with 95% intervals" in capsys.readouterr().out


def test_own_pairs_are_laid_over_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The keys of the data module that is replaced must not linger, nor may its evaluation of another task.
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    sides = {"chosen": "    return x + 1\n", "rejected": "    return x\n"}
    rows = [{"prompt": f"# add {i}\n", **sides} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overlay = ["--config", str(ROOT / "configs/dpo.yaml"), "--config", str(ROOT / "configs/data/pairs.yaml")]
    own = ["--data.train", str(tmp_path / "pairs.jsonl"), "--data.validation_size", "0.2", "--data.batch_size", "4"]
    run = ["--runs_folder", str(tmp_path), "--run_name", "run", "--trainer.log_every_n_steps", "1"]
    main(["fit", *overlay, *own, *run])
    summary = json.loads((tmp_path / "dpo" / "run" / "summary.json").read_text())
    # 16 of 20 pairs train: 4 steps an epoch, 2 epochs
    assert summary["data"] == "PairsDataModule" and summary["optimizer_steps"] == 8
    assert summary["after"].keys() == {"pair_accuracy", "logps/chosen", "logps/rejected"}
