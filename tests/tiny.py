"""What the tests train: a tiny random model in a folder, rows in a file, a trainer that says and writes nothing."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lit_pref.models import EMBEDDED_FOLDER, export_model, load_tokenizer


def tiny_llama(seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    """Of the embedded tokenizer's vocabulary; far from uniform, so that a wrong mask or position shows."""
    sizes = {"vocab_size": 884, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    config = LlamaConfig(**(sizes | ids | {"num_attention_heads": 2, "initializer_range": 0.3} | settings))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def saved(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    """The model with the embedded tokenizer or another one, in a folder that policies are loaded from."""
    return str(export_model(model, tokenizer or load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), folder))


def rows_file(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trainer_for(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    """One epoch on the CPU."""
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    defaults = {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, "default_root_dir": folder}
    return Trainer(**(quiet | defaults | {"callbacks": list(callbacks)} | settings))
