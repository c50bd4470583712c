"""`lit-pref export` and `lit-pref tokenizer`: model folders from checkpoints, and the embedded models' tokenizer."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentParser, auto_cli

from lit_pref.cli_errors import readable
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
    content = read_checkpoint("--checkpoint", checkpoint)
    policy = content["lit_pref"]["policy"]
    model = load_causal_lm(policy, random_init=True)
    prefix = "model."
    state = {name.removeprefix(prefix): x for name, x in content["state_dict"].items() if name.startswith(prefix)}
    model.load_state_dict(state)
    export_model(model, load_tokenizer(policy), output)
    print(f"wrote {output}; open it with AutoModelForCausalLM.from_pretrained({str(output)!r})")


def read_checkpoint(option: str, path: Path) -> dict[str, Any]:
    """A checkpoint's content, memory-mapped; Raises UserError, which names the option, where it is none of ours."""
    if not path.is_file():
        raise UserError(f"{option}: no file {path}; a run keeps its checkpoints in runs/.../checkpoints/")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise UserError(f"{option}: {path} is no checkpoint, or was cut short: expected a run's last.ckpt") from error
    if "lit_pref" not in content:
        raise UserError(f"{option}: {path} was not written by a lit_pref module")
    return content


def tokenizer(output: Path, vocab_size: int = 1024, texts: int = 20_000, seed: int = 0) -> None:
    """Train the byte-level BPE tokenizer of the embedded models on their task.

    Args:
        output: the folder to write.
        vocab_size: tokens, special ones included.
        texts: demonstrations to learn merges from.
        seed: of the demonstrations.
    """
    # With slips in half of them, so that their spellings are words of the vocabulary too.
    demonstrations = CodeTask(bug_rate=0.5).demonstrations("train", texts, seed)
    trained = train_tokenizer((f"{d.prompt}{d.completion}" for d in demonstrations), vocab_size)
    trained.save_pretrained(output)
    print(f"wrote {output}: {len(trained)} tokens")


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(readable(str(message), ()))


def run_export(arguments: list[str]) -> None:
    auto_cli(export, args=arguments, as_positional=False, prog="lit-pref export", parser_class=_Parser)


def run_tokenizer(arguments: list[str]) -> None:
    auto_cli(tokenizer, args=arguments, as_positional=False, prog="lit-pref tokenizer", parser_class=_Parser)
