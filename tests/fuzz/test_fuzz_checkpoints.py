"""Damaged and foreign checkpoints: resume, export and evaluate say what is wrong in one line, and nothing is written.

`LIT_PREF_FUZZ=10` tries 200 of them, the suite 20.
"""

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pref.callbacks import CheckedCheckpointIO
from lit_pref.callbacks.checkpoint_io import read_checkpoint, write_checkpoint
from lit_pref.cli.main import main
from lit_pref.datamodules import DemonstrationsDataModule
from lit_pref.models import EMBEDDED_FOLDER, export_model, load_tokenizer
from lit_pref.modules import SFTModule, adamw

ROUNDS = int(os.environ.get("LIT_PREF_FUZZ", "1"))

Draw = random.Random


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a sound checkpoint, and the same as an older version wrote it."""
    home = tmp_path_factory.mktemp("home")
    config = LlamaConfig(
        vocab_size=884, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    policy = str(export_model(LlamaForCausalLM(config), load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), home / "m"))
    rows = [{"prompt": f"# {i}\n", "completion": "x" * (1 + i % 5)} for i in range(6)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = home / "runs" / "small" / "run" / "checkpoints" / "last.ckpt"
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, plugins=[CheckedCheckpointIO()], log_every_n_steps=1,
    )  # fmt: skip
    source = str(home / "rows.jsonl")
    data = DemonstrationsDataModule(train=source, validation=source)
    trainer.fit(SFTModule(policy=policy, optimizer=adamw(1e-3)), data)
    trainer.save_checkpoint(last)
    torch.save(read_checkpoint(last), home / "older.ckpt")
    return home


def flipped(data: bytes, draw: Draw) -> bytes:
    damaged = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 50])):
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def cut(data: bytes, draw: Draw) -> bytes:
    return data[: draw.choice([0, 1, 21, len(data) // 2, len(data) - 1, draw.randrange(len(data))])]


def zeroed(data: bytes, draw: Draw) -> bytes:
    start = draw.randrange(len(data) - 600)
    return data[:start] + bytes(512) + data[start + 512 :]


def inserted(data: bytes, draw: Draw) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + draw.randbytes(draw.randrange(1, 40)) + data[place:]


def foreign(data: bytes, draw: Draw) -> bytes:
    return draw.choice(
        [b"seed_everything: 1\n", draw.randbytes(500), b"PK\x03\x04" + draw.randbytes(500), b"\x80\x04."]
    )


class Code:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


def otherwise(path: Path, content: dict[str, Any], draw: Draw) -> str:
    """A whole file of something else."""
    key = draw.choice(["state_dict", "lit_pref", "optimizer_states", "loops", "pytorch-lightning_version"])
    kinds: dict[str, Callable[[], None]] = {
        "zip": lambda: zipfile.ZipFile(path, "w").writestr("x/data.pkl", draw.randbytes(30)),
        "code": lambda: torch.save(Code(), path),
        "list": lambda: write_checkpoint([content], path),  # type: ignore[arg-type]
        "weights": lambda: torch.save(content["state_dict"], path),
        f"no {key}": lambda: write_checkpoint({name: x for name, x in content.items() if name != key}, path),
        f"{key} is a number": lambda: write_checkpoint(content | {key: 3}, path),
        "other shapes": lambda: write_checkpoint(
            content | {"state_dict": {name: x[:1] for name, x in content["state_dict"].items()}}, path
        ),
        "another module": lambda: write_checkpoint(
            content | {"lit_pref": content["lit_pref"] | {"module": "DPOModule", "policy": "embedded:base"}}, path
        ),
    }
    kind = draw.choice(sorted(kinds))
    kinds[kind]()
    return kind


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("seed", range(20 * ROUNDS))
def test_no_traceback_and_nothing_taken(
    seed: int, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("LIT_PREF_CACHE", str(home / "cache"))
    draw = Draw(seed)
    run = home / "runs" / "small" / "run"
    sound, path = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "damaged.ckpt"
    damage = draw.choice([flipped, flipped, cut, zeroed, inserted, foreign, None, None])
    if damage is None:
        label = otherwise(path, read_checkpoint(sound), draw)
    else:
        label = damage.__name__
        data = sound.read_bytes()
        while (damaged := damage(data, draw)) == data:  # zeros over zeros
            continue
        path.write_bytes(damaged)
    commands = {
        "fit": ["--model", "SFTModule", "--model.policy", "m", "--data", "DemonstrationsDataModule", "--data.train",
                "rows.jsonl", "--runs_folder", "runs", "--run_name", "run", "--ckpt_path", str(path)],
        "export": ["--checkpoint", str(path), "--output", "out"],
        "evaluate": ["--task", "HumanEval", "--checkpoint", str(path), "--output", "out"],
    }  # fmt: skip
    # Weights without the rest of a run can be exported and measured.
    whole = label in ("no optimizer_states", "no loops", "optimizer_states is a number", "loops is a number")
    whole = whole or "version" in label or label == "another module"
    command = "fit" if whole else sorted(commands)[seed % 3]
    before = state_of(run)
    print(f"seed {seed}: {command} of {label}")
    with pytest.raises(SystemExit) as stop:
        main([command, *commands[command]])
    shown = capsys.readouterr()
    assert stop.value.code == 2, shown.err
    assert "Traceback" not in shown.err and "code ran" not in shown.out
    assert shown.err.startswith("lit-pref: error: ") and shown.err.count("\n") == 1
    assert state_of(run) == before and not (home / "out").exists()


def test_an_older_file_is_taken_where_its_content_is_what_was_written(home: Path) -> None:
    """A flipped bit in what no reader looks at, padding and dates, is the only one that passes."""
    expected, data, draw = read_checkpoint(home / "older.ckpt"), (home / "older.ckpt").read_bytes(), Draw(0)
    refused = 0
    for _ in range(40 * ROUNDS):
        (home / "bent.ckpt").write_bytes(flipped(data, draw))
        try:
            content = read_checkpoint(home / "bent.ckpt")
        except ValueError:
            refused += 1
            continue
        for name, value in expected["state_dict"].items():
            assert torch.equal(content["state_dict"][name], value)
        assert content["optimizer_states"][0].keys() == expected["optimizer_states"][0].keys()
    assert refused > 30 * ROUNDS
