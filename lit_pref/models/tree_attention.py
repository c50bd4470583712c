"""Hidden states of token trees: the attention mask of shared prompts, put to any attention-only transformers model.

The models are used unpatched, through scaled-dot-product or eager attention, sliding windows included. Models which
cannot share a prompt (recurrent layers, chunked or sparse attention, positions taken from the column) are told by
`sharing_obstacle`; for them, `collate_trees(..., shared=False)` lays trees out with the prompt repeated.
Not covered: FlashAttention kernels, which take no such mask, and encoder-decoder models.
"""

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.types import TreeBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# GPT-Neo cuts its local attention by column in a buffer of its own, and its config names no layer_types.
_COLUMN_WINDOW_TYPES = frozenset({"gpt_neo"})


def tree_attention_mask(
    tree_BT: Tensor, branch_BT: Tensor, position_ids_BT: Tensor, window: int | None = None
) -> Tensor:
    """[B, 1, T, T], True where a token may look: back within its tree, at the prompt or at its own branch.

    window: how many positions a token sees at most, itself included, as transformers counts a sliding window.
    Padding sees itself alone, since a softmax over nothing is NaN.
    """
    width = tree_BT.shape[1]
    causal_TT = torch.ones(width, width, dtype=torch.bool, device=tree_BT.device).tril()
    same_tree_BTT = tree_BT[:, :, None] == tree_BT[:, None, :]
    same_branch_BTT = branch_BT[:, :, None] == branch_BT[:, None, :]
    prompt_BTT = branch_BT[:, None, :] == 0
    allowed_BTT = causal_TT & same_tree_BTT & (same_branch_BTT | prompt_BTT)
    if window is not None:
        allowed_BTT &= position_ids_BT[:, :, None] - position_ids_BT[:, None, :] < window
    is_token_BT = tree_BT >= 0
    allowed_BTT &= is_token_BT[:, :, None]
    allowed_BTT |= torch.eye(width, dtype=torch.bool, device=tree_BT.device)
    return allowed_BTT[:, None]


def tree_hidden_states(model: "PreTrainedModel", batch: TreeBatch) -> Tensor:
    """[B, T, D] last hidden states of the backbone, as the LM head takes them.

    A plain batch goes through the model as it comes: causal attention is exact, since padding stands on the right.
    Raises UserError, naming the reason, for other batches and a model which cannot share prompts.
    """
    backbone = model.base_model
    if backbone is model:
        raise UserError(
            f"{type(model).__name__} does not name its backbone (base_model_prefix), so it cannot be scored"
        )
    if batch.plain:
        outputs = backbone(input_ids=batch.input_ids_BT, use_cache=False)
    else:
        obstacle = sharing_obstacle(model)
        if obstacle is not None:
            raise UserError(f"{obstacle}, so its completions cannot share a prompt: lay trees out with shared=False")
        outputs = backbone(
            input_ids=batch.input_ids_BT,
            position_ids=batch.position_ids_BT,
            attention_mask=_attention_masks(model, batch),
            use_cache=False,
        )
    hidden_BTD: Tensor = outputs.last_hidden_state
    return hidden_BTD


def predictor_hidden_states(model: "PreTrainedModel", batch: TreeBatch) -> Tensor:
    """[N, D] hidden states which predict the completion tokens, in the order of `batch.target_N`."""
    return tree_hidden_states(model, batch).flatten(0, 1)[batch.predictor_N]


def can_share_prompts(model: "PreTrainedModel") -> bool:
    """Whether `tree_hidden_states` is exact for several completions behind one prompt."""
    return sharing_obstacle(model) is None


def sharing_obstacle(model: "PreTrainedModel") -> str | None:
    """What keeps completions from sharing a prompt, from the model's own config and code; None if nothing does."""
    config = model.config.get_text_config()
    name = type(model).__name__
    others = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"})
    arguments = inspect.signature(model.base_model.forward).parameters
    implementation = config._attn_implementation
    if config.is_encoder_decoder:
        return f"{name} is an encoder-decoder"
    if model._is_stateful:
        return f"{name} has recurrent layers"
    if others:
        return f"{name} has layers of type {', '.join(others)}"
    if not {"position_ids", "attention_mask"} <= set(arguments):
        return f"{name} takes no position ids"
    if getattr(config, "alibi", False):
        return f"{name} takes positions from columns (ALiBi)"
    if config.model_type in _COLUMN_WINDOW_TYPES:
        return f"{name} cuts its local attention by column"
    if implementation not in ("sdpa", "eager"):
        return f"{name} runs attention {implementation!r} and needs 'sdpa' or 'eager' for a mask of its own"
    return None


def _attention_masks(model: "PreTrainedModel", batch: TreeBatch) -> Tensor | dict[str, Tensor]:
    """What the backbone takes for its mask: one for all layers, or one a layer type where only some have a window."""
    config = model.config.get_text_config()
    layout = batch.tree_BT, batch.branch_BT, batch.position_ids_BT
    window = _sliding_window(model)
    layer_types = set(getattr(config, "layer_types", None) or ())
    if window is None or batch.tree_BT.shape[1] <= window or layer_types == {"full_attention"}:
        return _as_implemented(model, tree_attention_mask(*layout))
    windowed = _as_implemented(model, tree_attention_mask(*layout, window=window))
    if "full_attention" in layer_types:
        return {
            "full_attention": _as_implemented(model, tree_attention_mask(*layout)),
            "sliding_attention": windowed,
        }
    return windowed


def _sliding_window(model: "PreTrainedModel") -> int | None:
    """The window which the model's own forward would apply; a ready-made mask switches it off."""
    config = model.config.get_text_config()
    # A config may carry the key while the architecture ignores it, so ask the code whether it ever builds such a mask.
    code = inspect.unwrap(type(model.base_model).forward).__globals__
    window: int | None = getattr(config, "sliding_window", None)
    return window if "create_sliding_window_causal_mask" in code else None


def _as_implemented(model: "PreTrainedModel", allowed_BTT: Tensor) -> Tensor:
    """Scaled-dot-product attention takes booleans; eager attention adds its mask to the scores."""
    if model.config.get_text_config()._attn_implementation == "sdpa":
        return allowed_BTT
    blocked = torch.zeros(allowed_BTT.shape, dtype=model.dtype, device=allowed_BTT.device)
    return blocked.masked_fill_(~allowed_BTT, torch.finfo(model.dtype).min)
