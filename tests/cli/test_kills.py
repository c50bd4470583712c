"""Runs that are killed at any moment and go on from `last.ckpt` end as those that nobody disturbed: to the bit.

The fast tests stop a run from within at a chosen batch; the slow one kills processes from outside, 20 times in all, at
moments that a seeded generator draws.
"""

import csv
import json
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pref.callbacks.checkpoint_io import read_checkpoint
from lit_pref.cli.main import main
from lit_pref.models import EMBEDDED_FOLDER, export_model, load_tokenizer
from lit_pref.modules.language_model import _LanguageModule

RUN = Path("runs/small")
PAIRS = [
    {"prompt": f"# {i}\n", "chosen": "x" * (1 + i % 5), "rejected": "y" * (1 + i % 3) + "z"} for i in range(30)
]  # fmt: skip
MODULES: dict[str, dict[str, Any]] = {
    "sft": {"class_path": "SFTModule", "init_args": {"dropout": True}},
    "dpo": {"class_path": "DPOModule", "init_args": {"objective": {"class_path": "DPO"}}},
    "reward": {"class_path": "RewardFinetuneModule"},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    config = LlamaConfig(
        vocab_size=884, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3, bos_token_id=None, eos_token_id=0, pad_token_id=1, attention_dropout=0.1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        export_model(LlamaForCausalLM(config), load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), "model")
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield


def configured(method: str, epochs: int, **trainer: Any) -> None:
    module = json.loads(json.dumps(MODULES[method]))
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    module["init_args"] = {"policy": "model", "optimizer": optimizer, **module.get("init_args", {})}
    data = {"train": "rows.jsonl", "validation": "rows.jsonl", "batch_size": 3}
    if method != "sft":
        data |= {"train": "pairs.jsonl", "validation": "pairs.jsonl"}
    config = {
        "seed_everything": 3,
        "model": module,
        "data": {
            "class_path": "DemonstrationsDataModule" if method == "sft" else "PairsDataModule",
            "init_args": data,
        },
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": epochs,
            "log_every_n_steps": 1,
            # As often as saving may take its share of the time.
            "callbacks": [{"class_path": "LastCheckpoint", "init_args": {"minutes": 1e-6}}],
            **trainer,
        },
    }
    Path("small.yaml").write_text(json.dumps(config))


def command(name: str) -> list[str]:
    return ["fit", "--config", "small.yaml", f"--run_name={name}"]


def rows_of(name: str) -> list[dict[str, str]]:
    path = RUN / name / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: x for key, x in row.items() if x and "per_second" not in key} for row in rows]


def last(name: str) -> Path:
    return RUN / name / "checkpoints" / "last.ckpt"


def same_run(name: str, whole: str) -> None:
    got, expected = read_checkpoint(last(name)), read_checkpoint(last(whole))
    assert got["lit_pref"]["num_tokens"] == expected["lit_pref"]["num_tokens"]
    for key, value in expected["state_dict"].items():
        assert torch.equal(got["state_dict"][key], value), key
    assert rows_of(name) == rows_of(whole)
    summaries = [json.loads((RUN / each / "summary.json").read_text()) for each in (name, whole)]
    assert [summary["status"] for summary in summaries] == ["finished"] * 2
    assert summaries[0]["optimizer_steps"] == summaries[1]["optimizer_steps"]
    # What a resumed run saw again does not count; what it resumed does.
    assert summaries[0]["metrics"].keys() == summaries[1]["metrics"].keys()
    assert summaries[0]["data_fingerprints"] == summaries[1]["data_fingerprints"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_within_an_accumulated_step(
    signum: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configured("sft", epochs=2, accumulate_grad_batches=4, val_check_interval=5)
    main(command("whole"))
    step, handlers = _LanguageModule.on_before_zero_grad, [signal.getsignal(each) for each in (15, 2)]
    seen = 0

    def struck(self: _LanguageModule, batch: Any, batch_idx: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 7:  # of 10 an epoch: one step was taken, and a validation has been logged since
            signal.raise_signal(signum)
        start(self, batch, batch_idx)

    start = _LanguageModule.on_train_batch_start
    with monkeypatch.context() as patch:
        patch.setattr(_LanguageModule, "on_train_batch_start", struck)
        with pytest.raises(SystemExit) as stop:
            main(command("struck"))
    assert stop.value.code == status
    assert [signal.getsignal(each) for each in (15, 2)] == handlers and step is _LanguageModule.on_before_zero_grad
    error = capsys.readouterr().err
    assert ("stopped by SIGTERM" if status == 143 else "interrupted") in error
    way_on = error.strip().splitlines()[-1].partition("go on with: lit-pref ")[2]
    assert way_on == shlex.join([*command("struck"), "--ckpt_path", str(last("struck"))])
    summary = json.loads((RUN / "struck" / "summary.json").read_text())
    assert (summary["status"], summary["optimizer_steps"]) == ("interrupted", 1)
    tokens = read_checkpoint(last("struck"))["lit_pref"]["num_tokens"]

    main(shlex.split(way_on))
    same_run("struck", "whole")
    assert 0 < tokens < read_checkpoint(last("struck"))["lit_pref"]["num_tokens"]


# --- kills from outside ---------------------------------------------------------------------------------------------


def forked(arguments: list[str]) -> int:
    """The process of a command, in a group of its own; what it shows lies in `shown.txt`."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    os.setsid()
    shown = os.open("shown.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(shown, 1)
    os.dup2(shown, 2)
    status = 1
    try:
        main(arguments)
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        os._exit(status)


def started(arguments: list[str], devices: int) -> int:
    """Several devices start their other processes by the command that they were started by."""
    if devices == 1:
        return forked(arguments)
    with Path("shown.txt").open("a") as shown:
        whole = [sys.executable, "-m", "lit_pref.cli.main", *arguments]
        outputs = [(os.POSIX_SPAWN_DUP2, shown.fileno(), number) for number in (1, 2)]
        return os.posix_spawn(sys.executable, whole, os.environ, file_actions=outputs, setsid=True)


def ended(process: int) -> int | None:
    done, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def finished(arguments: list[str], devices: int) -> None:
    process, deadline = started(arguments, devices), time.monotonic() + 600
    while (status := ended(process)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert status == 0, Path("shown.txt").read_text()[-3000:]


def struck(process: int, name: str, rows: int, signum: signal.Signals, delay: float) -> bool:
    """Send a signal once so many rows are logged; whether that was before the run's end."""
    deadline = time.monotonic() + 600
    while len(rows_of(name)) < rows:
        if ended(process) is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)  # a moment within a step, a validation or the writing of a checkpoint
    if signum == signal.SIGKILL:
        os.killpg(process, signum)  # those that it has started too, as a machine does that goes down
    else:
        os.kill(process, signum)
    while (status := ended(process)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[signum]
    assert status in (expected, 0), Path("shown.txt").read_text()[-3000:]
    return status == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings", "kills"),
    [
        ("sft", {"accumulate_grad_batches": 4, "val_check_interval": 5}, 6),
        ("dpo", {"accumulate_grad_batches": 3}, 6),
        ("reward", {"val_check_interval": 0.5}, 4),
        ("sft", {"accumulate_grad_batches": 2, "devices": 2, "strategy": "ddp"}, 4),
    ],
    ids=["sft", "dpo", "reward", "ddp"],
)
def test_kills(method: str, settings: dict[str, Any], kills: int) -> None:
    devices, draw = settings.get("devices", 1), random.Random(f"{method} {kills}")
    configured(method, epochs=12, **settings)
    finished(command("whole"), devices)
    # A Ctrl-C that meets the interpreter of a second process as it starts is Python's own to answer.
    last_one = signal.SIGINT if devices == 1 else signal.SIGKILL
    total, signals = len(rows_of("whole")), [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, last_one]
    done, rows, arguments = 0, 0, command("killed")
    while done < kills:
        process = started(arguments, devices)
        rows = draw.randint(rows + 1, max(rows + 1, total - (kills - done)))
        hit = struck(process, "killed", rows, signals[done % 4], draw.random() * 0.05)
        assert hit, f"the run ended before kill {done + 1}, at row {rows} of {total}"
        done, rows = done + 1, min(len(rows_of("killed")), rows)
        if last("killed").is_file():
            arguments = [*command("killed"), "--ckpt_path", str(last("killed"))]
    finished(arguments, devices)
    same_run("killed", "whole")
