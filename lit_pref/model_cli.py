"""`lit-pref export` and `lit-pref tokenizer`: model folders from checkpoints, and the embedded models' tokenizer."""

from pathlib import Path

import torch
from jsonargparse import auto_cli

from lit_pref.data.tokenizer_training import train_tokenizer
from lit_pref.errors import UserError
from lit_pref.models import export_model, load_causal_lm, load_tokenizer
from lit_pref.tasks import CodeTask


def export(checkpoint: Path, output: Path) -> None:
    """Write a checkpoint's model as a folder that opens in transformers.

    Args:
        checkpoint: a `.ckpt` file of a run.
        output: the folder to make; it must not exist or be empty.
    """
    if not checkpoint.is_file():
        raise UserError(f"--checkpoint: no file {checkpoint}; a run keeps its checkpoints in runs/.../checkpoints/")
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "lit_pref" not in content:
        raise UserError(f"--checkpoint: {checkpoint} was not written by a lit_pref module")
    policy = content["lit_pref"]["policy"]
    model = load_causal_lm(policy, random_init=True)
    prefix = "model."
    state = {name.removeprefix(prefix): x for name, x in content["state_dict"].items() if name.startswith(prefix)}
    model.load_state_dict(state)
    export_model(model, load_tokenizer(policy), output)
    print(f"wrote {output}; open it with AutoModelForCausalLM.from_pretrained({str(output)!r})")


def tokenizer(output: Path, vocab_size: int = 1024, texts: int = 20_000, seed: int = 0) -> None:
    """Train the byte-level BPE tokenizer of the embedded models on their task.

    Args:
        output: the folder to write.
        vocab_size: tokens, special ones included.
        texts: demonstrations to learn merges from.
        seed: of the demonstrations.
    """
    demonstrations = CodeTask().demonstrations("train", texts, seed)
    trained = train_tokenizer((f"{d.prompt}{d.completion}" for d in demonstrations), vocab_size)
    trained.save_pretrained(output)
    print(f"wrote {output}: {len(trained)} tokens")


def run_export(arguments: list[str]) -> None:
    auto_cli(export, args=arguments, as_positional=False, prog="lit-pref export")


def run_tokenizer(arguments: list[str]) -> None:
    auto_cli(tokenizer, args=arguments, as_positional=False, prog="lit-pref tokenizer")
