"""Hidden states of token trees: the attention mask of shared prompts, put to any attention-only transformers model.

The models are used unpatched, through transformers' attention interface or with a dense mask, sliding windows
included. Models which cannot share a prompt (recurrent layers, chunked or sparse attention, positions taken from the
column) are told by `sharing_obstacle`; for them, `collate_trees(..., shared=False)` lays trees out with the prompt
repeated. Of such rows those run together that may (`exactness`), down to one after another.
Not covered: FlashAttention kernels, which take no such mask, and encoder-decoder models.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.models.attention.tree_by_tree import SHORT, tree_mask
from lit_pref.models.attention.tree_kernels import (
    TREES,
    MaskLostError,
    SpanMask,
    can_attend_by_tree,
    register,
    tree_block_mask,
    trees_alone,
)
from lit_pref.models.exactness import Exactness, exactness, known_exactness
from lit_pref.models.rope import forget_length, rope_obstacle, rope_regime
from lit_pref.types import TreeBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kernel = Literal["auto", "sdpa", "flex"]

# GPT-Neo cuts its local attention by column in a buffer of its own, and its config names no layer_types.
_COLUMN_WINDOW_TYPES = frozenset({"gpt_neo"})

# Exact in every layout by the test suite, so that they are tried only where models are opened.
_TESTED_TYPES = frozenset({
    "cohere", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "gptj", "granite", "llama", "mistral", "olmo2", "phi",
    "phi3", "qwen2", "qwen3", "qwen3_moe", "starcoder2",
})  # fmt: skip


def tree_attention_mask(
    tree_BT: Tensor, branch_BT: Tensor, position_ids_BT: Tensor, window: int | None = None
) -> Tensor:
    """[B, 1, T, T], True where a token may look: back within its tree, at the prompt or at its own branch.

    window: how many positions a token sees at most, itself included, as transformers counts a sliding window.
    Padding sees only itself, since a softmax over nothing is NaN.
    """
    same_tree_BTT = (tree_BT[:, :, None] == tree_BT[:, None, :]) & (tree_BT >= 0)[:, :, None]
    return tree_mask(same_tree_BTT, branch_BT, position_ids_BT, window)[:, None]


def tree_hidden_states(model: "PreTrainedModel", batch: TreeBatch, kernel: Kernel = "auto") -> Tensor:
    """[B, T, D] last hidden states of the backbone, as the LM head takes them.

    A plain batch goes through the model as it comes: causal attention is exact, since padding stands on the right.
    Where a model makes something else of padded rows, these go through it without padding.
    kernel: what attends to trees: FlexAttention's block masks, or SDPA tree by tree, with a dense mask where a model's
        layers take no attention but their own; auto is flex on CUDA. Where a model cannot use flex, it uses SDPA.
    Raises UserError, naming the reason, for other batches and a model which cannot share prompts.
    """
    check_scoring(model)
    if batch.plain:
        return _plain_hidden_states(model, batch)
    obstacle = sharing_obstacle(model)
    if obstacle is not None:
        raise UserError(f"{obstacle}, so its completions cannot share a prompt: lay trees out with shared=False")
    hidden_BTD: Tensor = _tree_outputs(model, batch, kernel).last_hidden_state
    return hidden_BTD


def _plain_hidden_states(model: "PreTrainedModel", batch: TreeBatch) -> Tensor:
    """[B, T, D], 0 in padding that no model has seen."""
    rows, width = batch.input_ids_BT.shape
    lengths = [span.prompt + span.branches[0] for span in batch.spans]
    together = exact(model).rows
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, length in enumerate(lengths):
        apart = {"padded": (), "equal": (length,), "single": (row,)}[together]
        groups.setdefault((*apart, *rope_regime(model, length)), []).append(row)

    def run(ids_BT: Tensor) -> Tensor:
        forget_length(model)
        hidden_BTD: Tensor = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        return hidden_BTD

    if len(groups) == 1:
        return run(batch.input_ids_BT)
    if _is_sharded(model):
        raise UserError(
            f"{apart_obstacle(model)}, and forward passes of their own would leave processes that share its weights "
            "waiting for each other: train it with ddp or on one device"
        )
    found = [(group, run(batch.input_ids_BT[group, : max(lengths[row] for row in group)])) for group in groups.values()]
    hidden_BTD = found[0][1].new_zeros(rows, width, found[0][1].shape[2])
    for group, hidden_GTD in found:
        hidden_BTD[group, : hidden_GTD.shape[1]] = hidden_GTD
    return hidden_BTD


def _is_sharded(model: "PreTrainedModel") -> bool:
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(module, FSDPModule | FullyShardedDataParallel) for module in model.modules())


def _tree_outputs(model: "PreTrainedModel", batch: TreeBatch, kernel: Kernel) -> Any:
    def run(masks: Any) -> Any:
        return model.base_model(
            input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, attention_mask=masks, use_cache=False
        )

    longest = max(span.prompt + max(span.branches) for span in batch.spans)
    # Short trees, one a row as they are, need no more than a dense mask.
    small = batch.input_ids_BT.shape[1] <= SHORT and len(batch.spans) == len(batch.input_ids_BT)
    if can_attend_by_tree(model) and (kernel == "flex" or not small):
        attend_by_tree(model)
        flex = model._supports_flex_attn and (kernel == "flex" or (kernel == "auto" and batch.input_ids_BT.is_cuda))
        masks = masks_by_window(model, longest, partial(tree_block_mask if flex else SpanMask.of, batch))
        try:
            with trees_alone():
                return run(masks)
        except MaskLostError:
            _set_attention(model, "eager" if not model._supports_sdpa else "sdpa")
            model._supports_attention_backend = False  # of this model only: it is not asked again
    return run(masks_by_window(model, longest, partial(_dense_mask, model, batch)))


def scoring_obstacle(model: "PreTrainedModel") -> str | None:
    """What keeps a model from being scored exactly in any layout; None if nothing does."""
    if model.base_model is model:
        return f"{type(model).__name__} does not name its backbone (base_model_prefix)"
    return exact(model).refusal


def check_scoring(model: "PreTrainedModel", logps: bool = False, opened: bool = False) -> None:
    """Raise UserError, naming the reason, for a model whose hidden states, or log-probs, are exact in no layout.

    opened: as in `exact`.
    """
    if model.base_model is not model:
        exact(model, opened)
    obstacle = scoring_obstacle(model)
    if obstacle is not None:
        raise UserError(f"{obstacle}, so it cannot be scored")
    if logps and exact(model).head is not None:
        raise UserError(f"{exact(model).head}, so it gives no log-probs")


def apart_obstacle(model: "PreTrainedModel") -> str | None:
    """What keeps sequences of unlike length out of one forward pass; None if they may be padded."""
    if exact(model).rows != "padded":
        return f"{type(model).__name__} makes something else of a sequence that is padded"
    return rope_obstacle(model)


def sharing_obstacle(model: "PreTrainedModel") -> str | None:
    """What keeps completions from sharing a prompt, from the model's config and code or by trial; None for nothing."""
    return _known_obstacle(model) or exact(model).refusal or exact(model).sharing


def exact(model: "PreTrainedModel", opened: bool = False) -> Exactness:
    """Which of our layouts give what each sequence gives by itself; tried at the first call.

    opened: try it whatever the architecture, as is done where a model is opened for training.
    """

    def hidden_states(model: "PreTrainedModel", batch: TreeBatch) -> Tensor:
        hidden_BTD: Tensor = _tree_outputs(model, batch, "sdpa").last_hidden_state
        return hidden_BTD

    obstacle = _known_obstacle(model)
    if not opened and model.config.model_type in _TESTED_TYPES and type(model).__module__.startswith("transformers."):
        return known_exactness(model) or Exactness()
    return exactness(model, None if obstacle else hidden_states)


def _known_obstacle(model: "PreTrainedModel") -> str | None:
    """Of sharing prompts, as far as the model's own config and code tell it."""
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
    if getattr(config, "attn_temperature_tuning", False):
        return f"{name} scales its attention by column"
    if rope_obstacle(model) is not None:
        return rope_obstacle(model)
    if implementation not in ("sdpa", "eager", TREES):
        return f"{name} runs attention {implementation!r} and needs 'sdpa' or 'eager' for a mask of its own"
    return None


def attend_by_tree(model: "PreTrainedModel") -> None:
    """Have a model that can (`can_attend_by_tree`) take its attention from `tree_kernels`; other masks run as SDPA."""
    _set_attention(model, TREES)


def _set_attention(model: "PreTrainedModel", name: str) -> None:
    if model.config.get_text_config()._attn_implementation != name:
        register()
        model.set_attn_implementation(name)


def masks_by_window(model: "PreTrainedModel", longest: int, make: Callable[[int | None], Any]) -> Any:
    """What the backbone takes for its mask: one for all layers, or one a layer type where only some have a window.

    longest: tokens of the longest sequence.
    make: a mask from its window.
    """
    config = model.config.get_text_config()
    window = _sliding_window(model)
    layer_types = set(getattr(config, "layer_types", None) or ())
    if window is None or longest <= window or layer_types == {"full_attention"}:
        return make(None)
    if "full_attention" in layer_types:
        return {"full_attention": make(None), "sliding_attention": make(window)}
    return make(window)


def _sliding_window(model: "PreTrainedModel") -> int | None:
    """The window which the model's own forward would apply; a ready-made mask switches it off."""
    config = model.config.get_text_config()
    # A config may carry the key while the architecture ignores it, so ask the code whether it ever builds such a mask.
    code = inspect.unwrap(type(model.base_model).forward).__globals__
    window: int | None = getattr(config, "sliding_window", None)
    return window if "create_sliding_window_causal_mask" in code else None


def _dense_mask(model: "PreTrainedModel", batch: TreeBatch, window: int | None) -> Tensor:
    """Scaled-dot-product attention takes booleans; eager attention adds its mask to the scores."""
    allowed_B1TT = tree_attention_mask(batch.tree_BT, batch.branch_BT, batch.position_ids_BT, window)
    if model.config.get_text_config()._attn_implementation != "eager":
        return allowed_B1TT
    blocked = torch.zeros(allowed_B1TT.shape, dtype=model.dtype, device=allowed_B1TT.device)
    return blocked.masked_fill_(~allowed_B1TT, torch.finfo(model.dtype).min)
