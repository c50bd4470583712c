"""`lit-pref export`: model folders from checkpoints."""

from pathlib import Path
from typing import Any

from lit_pref.callbacks.checkpoint_io import read_checkpoint
from lit_pref.cli.functions import Recipe, run_command
from lit_pref.errors import UserError
from lit_pref.models import ScoreHead, export_model, export_reward_model, load_tokenizer
from lit_pref.models.checkpoints import checkpoint_model
from lit_pref.types import Dtype


def export(checkpoint: Path, output: Path, adapter_only: bool = False, dtype: Dtype = "float32") -> None:
    """Write a checkpoint's model as a folder that opens in transformers; an adapter is merged into its base.

    Args:
        checkpoint: a `.ckpt` file of a run.
        output: the folder to make; it must not exist or be empty.
        adapter_only: write only the adapter, for `PeftModel.from_pretrained` over the base; it stays as it was trained.
        dtype: of the model's weights. float32 is exactly what was trained; bfloat16 halves the folder, and rounds what
            an adapter adds along with the rest.
    """
    content = read_option("--checkpoint", checkpoint)
    saved, score = content["lit_pref"], content["state_dict"].get("score_head.weight")
    if adapter_only and score is not None:
        raise UserError(f"--adapter_only: {checkpoint} is a reward model, whose head would be lost; export it whole")
    policy = saved["policy"]
    if adapter_only and not saved.get("adapter"):
        raise UserError(f"--adapter_only: {checkpoint} was trained without an adapter and holds all weights")
    model = checkpoint_model(checkpoint, content)
    opener = "PeftModel.from_pretrained(base, {})" if adapter_only else "AutoModelForCausalLM.from_pretrained({})"
    if score is None:
        export_model(model, load_tokenizer(policy), output, adapter_only, None if adapter_only else dtype)
    else:
        append_eos = bool(saved.get("append_eos", True))
        export_reward_model(model, ScoreHead(score), load_tokenizer(policy), output, append_eos, dtype)
        opener = "AutoModelForSequenceClassification.from_pretrained({})"
    print(f"wrote {output}; open it with {opener.format(repr(str(output)))}")


def read_option(option: str, path: Path) -> dict[str, Any]:
    """`read_checkpoint`, whose UserError names the option that gave the path."""
    try:
        return read_checkpoint(path)
    except UserError as error:
        raise UserError(f"{option}: {error}") from error


def run(arguments: list[str]) -> None:
    example = "lit-pref export --checkpoint runs/.../last.ckpt --output my-model"
    run_command(arguments, {"export": Recipe(export, example)})
