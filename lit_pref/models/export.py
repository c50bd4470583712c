"""Write a model and its tokenizer as a folder which opens in transformers; an adapter merged, or as peft's own folder.

Not covered: pushing to the hub.
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lit_pref.errors import UserError
from lit_pref.models.adapters import has_adapter, merged
from lit_pref.models.causal_lm import quiet_transformers, round_weights
from lit_pref.storage.files import publishing
from lit_pref.types import Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path | str,
    adapter_only: bool = False,
    dtype: Dtype | None = None,
) -> Path:
    """Write config, safetensors weights and tokenizer; the folder appears complete or not at all.

    An adapter is added into the weights of what is written; the model itself stays as it is.
    adapter_only: write only the adapter, as a folder that `PeftModel.from_pretrained` opens over the base.
    dtype: of the written weights; None is the model's own, and float32 where an adapter is merged.
    Raises UserError if the folder exists and is not empty or cannot be written, or `adapter_only` finds no adapter.
    """
    if adapter_only and not has_adapter(model):
        raise UserError(f"{type(model).__name__} has no adapter: adapter_only can write nothing")
    target = Path(folder).expanduser().absolute()
    if target.is_file():
        raise UserError(f"cannot export to {str(folder)!r}: a file stands there")
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"cannot export to {str(folder)!r}: it is not empty; name another folder or clear this one")
    # transformers itself writes only the adapter of a model that has one.
    written = merged(model) if has_adapter(model) and not adapter_only else model
    if dtype is not None and written.dtype != getattr(torch, dtype):
        written = written if written is not model else copy.deepcopy(model)
        round_weights(written, dtype)
    with publishing(target) as temporary, quiet_transformers():
        written.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return target
