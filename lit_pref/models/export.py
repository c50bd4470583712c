"""Write a model and its tokenizer as a folder which opens in transformers.

Not covered: merging adapters, pushing to the hub.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lit_pref.errors import UserError
from lit_pref.models.causal_lm import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path | str) -> Path:
    """Write config, safetensors weights and tokenizer; the folder appears complete or not at all.

    Raises UserError if the folder exists and is not empty.
    """
    target = Path(folder).expanduser().absolute()
    if target.is_file():
        raise UserError(f"cannot export to {str(folder)!r}: a file stands there")
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"cannot export to {str(folder)!r}: it is not empty; name another folder or clear this one")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, since a rename is atomic within one file system only. Inside the private folder that mkdtemp
    # makes, the export gets ordinary permissions.
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with quiet_transformers():
            model.save_pretrained(scratch / "model")
            tokenizer.save_pretrained(scratch / "model")
        (scratch / "model").rename(target)
    finally:
        shutil.rmtree(scratch)
    return target
