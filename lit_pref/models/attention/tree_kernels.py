"""Attention of token trees without the dense [T, T] mask: tree by tree through SDPA, or FlexAttention's block masks.

Registered with transformers' attention interface under `TREES`, so that models stay unpatched: what a model hands
on as its attention mask says where the trees lie. An ordinary mask, or none, goes to transformers' own SDPA.
Not covered: softcapped attention scores, attention sinks and position biases (`can_attend_by_tree`), FlashAttention.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from lit_pref.models.attention.tree_by_tree import Piece, attend, plan_of
from lit_pref.types import TreeBatch

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

TREES = "lit_pref_trees"
"""The attention implementation's name in transformers."""


class MaskLostError(RuntimeError):
    """A model has changed the mask on its way to its layers, or asks for what a tree's kernels do not do."""


class AttentionGoesOnError(RuntimeError):
    """A layer attends after the one that was taken for the last."""


class SpanMask(Tensor):
    """Where the trees of a batch lie, in the shape that transformers hands through unchanged.

    A [1, 1, T, T] view of one element: it costs nothing, whatever T. Any operation gives an ordinary tensor, by which
    a model that reworks its mask is told from one that hands it on (`trees_alone`).
    """

    plan: Sequence[Piece]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, batch: TreeBatch, window: int | None) -> Self:
        """window: positions that a token sees at most, itself included."""
        width = batch.input_ids_BT.shape[1]
        return cls.over(list(plan_of(batch, window)), width, width, batch.input_ids_BT.device)

    @classmethod
    def over(cls, plan: Sequence[Piece], queries: int, width: int, device: torch.device) -> Self:
        nothing = torch.ones((), dtype=torch.bool, device=device).expand(1, 1, queries, width)
        mask: Self = Tensor._make_subclass(cls, nothing)
        mask.plan = plan
        return mask

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None) -> Tensor:
        """[B, T, H, d]."""
        rows, _, width, _ = query.shape
        output = attend(query, key, value, self.plan, dropout, scale)
        return output.view(rows, width, *output.shape[2:])


def tree_block_mask(batch: TreeBatch, window: int | None) -> "BlockMask":
    """FlexAttention's form of `tree_attention_mask`: blocks without a pair that may look at each other are skipped."""
    from torch.nn.attention.flex_attention import create_block_mask

    tree_BT, branch_BT, position_BT = batch.tree_BT, batch.branch_BT, batch.position_ids_BT
    rows, width = tree_BT.shape

    def may_look(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        same_tree = (tree_BT[b, q] == tree_BT[b, k]) & (tree_BT[b, q] >= 0)
        same_path = (branch_BT[b, q] == branch_BT[b, k]) | (branch_BT[b, k] == 0)
        allowed = (k <= q) & same_tree & same_path
        if window is not None:
            allowed = allowed & (position_BT[b, q] - position_BT[b, k] < window)
        return allowed | (q == k)  # padding sees itself: a softmax over nothing is NaN

    return create_block_mask(may_look, rows, None, width, width, device=tree_BT.device)


_trees_alone, _over = False, False


@contextmanager
def trees_alone() -> Iterator[None]:
    """Within, attention to anything but trees raises MaskLostError: a mask that a layer has remade says nothing."""
    global _trees_alone, _over
    _trees_alone = True
    try:
        yield
    finally:
        _trees_alone = _over = False


def attention_is_over() -> None:
    """From here to the end of `trees_alone`, attention to trees raises AttentionGoesOnError."""
    global _over
    _over = True


@cache
def register() -> None:
    """Make `TREES` known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(TREES, tree_attention)
    AttentionMaskInterface.register(TREES, sdpa_mask)


def can_attend_by_tree(model: "PreTrainedModel") -> bool:
    """Whether a model's layers take their attention from transformers' interface and would run it as SDPA."""
    return (
        model.config.get_text_config()._attn_implementation in ("sdpa", TREES)
        and model._supports_attention_backend
        and model._can_set_attn_implementation()
    )


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: "Tensor | BlockMask | None",
    dropout: float = 0.0,
    scaling: float | None = None,
    **arguments: Any,  # transformers' interface: what a model passes on beyond these is its own
) -> tuple[Tensor, Tensor | None]:
    """[B, T, H, d] from query [B, H, T, d], key and value [B, H or fewer, T, d]; the second value is always None."""
    from torch.nn.attention.flex_attention import BlockMask
    from transformers.integrations.flex_attention import flex_attention_forward
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if isinstance(attention_mask, SpanMask):
        extras = sorted(k for k in ("softcap", "s_aux", "position_bias") if arguments.get(k) is not None)
        if extras:
            raise MaskLostError(f"{type(module).__name__} asks for {', '.join(extras)}")
        if _over:
            raise AttentionGoesOnError(f"{type(module).__name__} attends behind the last layer")
        return _by_mask(query, key, value, attention_mask, dropout, scaling), None
    if isinstance(attention_mask, BlockMask):
        arguments |= {"dropout": dropout, "scaling": scaling}
        output: Tensor = flex_attention_forward(module, query, key, value, attention_mask, **arguments)[0]
        return output, None
    if _trees_alone:
        raise MaskLostError(f"{type(module).__name__} gets another mask than the one that was handed to the model")
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **arguments
    )
    return output, None


@torch.compiler.disable  # type: ignore[untyped-decorator]  # lengths differ: a graph would be traced for each batch
def _by_mask(query: Tensor, key: Tensor, value: Tensor, mask: SpanMask, dropout: float, scale: float | None) -> Tensor:
    return mask.attend(query, key, value, dropout, scale)
