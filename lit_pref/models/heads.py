"""The LM head as a function of hidden states, with the bias, scale and softcapping of the model's own forward.

What that forward does between backbone and logits is read from its code; what this file does not know is refused by
name, never ignored. Not covered: heads of several parts (BERT, ModernBERT decoder) and trimmed vocabularies (Inkling).
"""

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lit_pref.errors import UserError
from lit_pref.losses.logps import LinearHead, scaled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CAPS = ("final_logit_softcapping", "logits_soft_cap")  # Gemma 2 and later; RecurrentGemma
_CHANGES_LOGITS = re.compile(r"logits?_.*(scal|cap|mult)|lm_head_.*mult|soft_?cap|vocab_size$")
_KNOWN = frozenset({*_CAPS, "logit_scale", "logits_scaling", "lm_head_multiplier", "vocab_size"})


def lm_head(model: "PreTrainedModel") -> Callable[[Tensor], Tensor]:
    """Logits [n, V] from hidden states [n, D], equal to those of the model's own forward.

    Raises UserError for a model whose logits are made in a way that is not known here.
    """
    reads = set(inspect.unwrap(type(model).forward).__code__.co_names)
    unknown = sorted(name for name in reads - _KNOWN if _CHANGES_LOGITS.search(name))
    head = model.get_output_embeddings()
    parts = [part for name, part in model.named_children() if name in reads and part is not model.base_model]
    if unknown or len(parts) != 1 or parts[0] is not head:
        what = ", ".join(unknown) or "a head of several parts"
        raise UserError(f"{type(model).__name__} makes its logits with {what}: no LM head is known for it here")

    factor, cap = _factor(model, reads), _cap(model, reads)
    if type(head) is nn.Linear and type(head.weight) in (Tensor, nn.Parameter) and not _has_hooks(head):
        return LinearHead(head.weight, head.bias, factor, cap)
    return lambda hidden: scaled(head(hidden), factor, cap)


def _has_hooks(module: nn.Module) -> bool:
    """Whether a strategy or an adapter does something around the module's forward, which must then be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _factor(model: "PreTrainedModel", reads: set[str]) -> float:
    config = model.config.get_text_config()
    factor = 1.0
    if "logit_scale" in reads:  # Cohere; MPT's config has the key too, and its forward ignores it
        factor *= config.logit_scale
    if "lm_head_multiplier" in reads:  # Falcon-H1
        factor *= config.lm_head_multiplier
    if "logits_scaling" in reads:  # Granite and MiniCPM3 divide, HyperCLOVA X multiplies
        factor *= config.logits_scaling if config.model_type == "hyperclovax" else 1.0 / config.logits_scaling
    return factor


def _cap(model: "PreTrainedModel", reads: set[str]) -> float | None:
    config = model.config.get_text_config()
    caps = [getattr(config, name) for name in _CAPS if name in reads]
    return caps[0] if caps else None
