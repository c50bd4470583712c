"""Attention of token trees without the dense [T, T] mask: tree by tree through SDPA, or FlexAttention's block masks.

Registered with transformers' attention interface under `TREES`, so that models stay unpatched: what a model hands
on as its attention mask says where the trees lie. An ordinary mask, or none, goes to transformers' own SDPA.
Not covered: softcapped attention scores, attention sinks and position biases (`can_attend_by_tree`), FlashAttention.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_pref.types import TreeBatch

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

TREES = "lit_pref_trees"
"""The attention implementation's name in transformers."""


class MaskLostError(RuntimeError):
    """A model has changed the mask on its way to its layers, or asks for what a tree's kernels do not do."""


class SpanMask(Tensor):
    """Where the trees of a batch lie, in the shape that transformers hands through unchanged.

    A [1, 1, T, T] view of one element: it costs nothing, whatever T. Any operation gives an ordinary tensor, by which
    a model that reworks its mask is told from one that hands it on (`trees_alone`).
    """

    plan: "list[_Padding | _Bundle | _Tree]"
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(batch: TreeBatch, window: int | None) -> "SpanMask":
        """window: positions that a token sees at most, itself included."""
        width = batch.input_ids_BT.shape[1]
        nothing = torch.ones((), dtype=torch.bool, device=batch.input_ids_BT.device).expand(1, 1, width, width)
        mask = Tensor._make_subclass(SpanMask, nothing)
        mask.plan = list(_plan(batch, window))
        return mask


def tree_mask(same_tree_BTT: Tensor, branch_BT: Tensor, position_BT: Tensor, window: int | None) -> Tensor:
    """[B, T, T], True where a token may look: back within its tree, at the prompt or at its own branch.

    same_tree_BTT: whether both are tokens of one tree. Padding sees itself alone: a softmax over nothing is NaN.
    """
    width = branch_BT.shape[1]
    ones_TT = torch.ones(width, width, dtype=torch.bool, device=branch_BT.device)
    same_branch_BTT = branch_BT[:, :, None] == branch_BT[:, None, :]
    prompt_BTT = branch_BT[:, None, :] == 0
    allowed_BTT = ones_TT.tril() & same_tree_BTT & (same_branch_BTT | prompt_BTT)
    if window is not None:
        allowed_BTT &= position_BT[:, :, None] - position_BT[:, None, :] < window
    return allowed_BTT | torch.eye(width, dtype=torch.bool, device=branch_BT.device)


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


_trees_alone = False


@contextmanager
def trees_alone() -> Iterator[None]:
    """Within, attention to anything but trees raises MaskLostError: a mask that a layer has remade says nothing."""
    global _trees_alone
    _trees_alone = True
    try:
        yield
    finally:
        _trees_alone = False


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
        return _tree_by_tree(query, key, value, attention_mask, dropout, scaling), None
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


# --- tree by tree -----------------------------------------------------------------------------------------------------

SHORT = 192  # tokens; below, trees are attended to side by side under one mask, since calls cost more than zeros


class _Padding(NamedTuple):
    lengths: tuple[int]


class _Bundle(NamedTuple):
    """Short trees that lie behind one another, attended to side by side: padded and masked."""

    lengths: tuple[int]
    token_GT: Tensor  # of each place, the token that stands there; any token in the padding
    place_S: Tensor  # of each token, its place in the flattened [G, T]
    allowed_G1TT: Tensor


class _Tree(NamedTuple):
    """A long tree: its prompt with the first branch is one causal sequence, each other branch sees the prompt."""

    lengths: tuple[int, ...]  # of the prompt with its first branch, and of the others
    prompt: int
    allowed: tuple[Tensor | None, ...]  # None is causal


def _plan(batch: TreeBatch, window: int | None) -> "Iterator[_Padding | _Bundle | _Tree]":
    """What the rows of a batch, laid end to end, consist of."""
    width, device = batch.input_ids_BT.shape[1], batch.input_ids_BT.device
    branch_F, position_F = batch.branch_BT.flatten(), batch.position_ids_BT.flatten()
    for row, in_row in groupby(batch.spans, key=lambda span: span.row):
        end = 0
        for short, group in groupby(in_row, key=lambda span: span.prompt + sum(span.branches) <= SHORT):
            spans = list(group)
            if short:
                bundle = _bundle([span.prompt + sum(span.branches) for span in spans], device)
                places_GT = row * width + end + bundle.token_GT
                same_G1TT = bundle.allowed_G1TT
                allowed_GTT = tree_mask(same_G1TT[:, 0], branch_F[places_GT], position_F[places_GT], window)
                yield bundle._replace(allowed_G1TT=allowed_GTT[:, None])
                end += bundle.lengths[0]
            for span in spans if not short else ():
                first, *others = span.branches
                causal = window is None or span.prompt + first <= window
                allowed = [None if causal else _behind(span.prompt + first, 0, window, device)]
                allowed += [_behind(length, span.prompt, window, device) for length in others]
                yield _Tree((span.prompt + first, *others), span.prompt, tuple(allowed))
                end += span.prompt + sum(span.branches)
        if end < width:
            yield _Padding((width - end,))


@torch.compiler.disable  # type: ignore[untyped-decorator]  # lengths differ: a graph would be traced for each batch
def _tree_by_tree(
    query: Tensor, key: Tensor, value: Tensor, mask: SpanMask, dropout: float, scale: float | None
) -> Tensor:
    rows, _, width, _ = query.shape
    attend = partial(
        scaled_dot_product_attention, dropout_p=dropout, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    # One split a tensor: slices would each make a gradient of the whole row's size.
    lengths = [length for piece in mask.plan for length in piece.lengths]
    parts = zip(*(torch.split(_end_to_end(x), lengths, 2) for x in (query, key, value)), strict=True)
    outputs: list[Tensor] = []
    for piece in mask.plan:
        several = list(islice(parts, len(piece.lengths)))
        if isinstance(piece, _Tree):
            outputs += _attend_by_branch(piece, several, attend)
        elif isinstance(piece, _Bundle):
            outputs.append(_attend_side_by_side(piece, several[0], attend))
        else:
            outputs.append(torch.zeros_like(several[0][0].transpose(1, 2)))
    return torch.cat(outputs, 1).view(rows, width, *outputs[0].shape[2:])


def _end_to_end(x: Tensor) -> Tensor:
    """[B, H, T, d] to [1, H, B * T, d]."""
    return x if len(x) == 1 else x.transpose(1, 2).reshape(1, -1, x.shape[1], x.shape[3]).transpose(1, 2)


def _attend_by_branch(tree: _Tree, parts: "list[tuple[Tensor, ...]]", attend: Callable[..., Tensor]) -> list[Tensor]:
    """[1, length, H, d] of each part."""
    outputs = []
    _, root_key, root_value = (x[:, :, : tree.prompt] for x in parts[0])
    for number, ((q, k, v), allowed) in enumerate(zip(parts, tree.allowed, strict=True)):
        if number:
            k, v = torch.cat([root_key, k], 2), torch.cat([root_value, v], 2)
        outputs.append(attend(q, k, v, allowed, is_causal=allowed is None).transpose(1, 2))
    return outputs


def _attend_side_by_side(bundle: _Bundle, parts: tuple[Tensor, ...], attend: Callable[..., Tensor]) -> Tensor:
    """[1, length, H, d]."""
    places = bundle.token_GT.shape
    token, place = bundle.token_GT.flatten(), bundle.place_S
    flat = (_rearranged(x[0].transpose(0, 1), token, place) for x in parts)
    q, k, v = (x.view(*places, *x.shape[1:]).transpose(1, 2) for x in flat)
    out_GTHd = attend(q, k, v, bundle.allowed_G1TT).transpose(1, 2)
    return _rearranged(out_GTHd.reshape(-1, *out_GTHd.shape[2:]), place, token)[None]


def _rearranged(x: Tensor, there: Tensor, back: Tensor) -> Tensor:
    moved: Tensor = _Rearranged.apply(x, there, back)  # type: ignore[no-untyped-call]
    return moved


class _Rearranged(torch.autograd.Function):
    """Rows to other places and, in the backward pass, back: a copy, where indexing would add up gradients row by row.

    Exact since each token has one place. What lies in the padding looks at itself alone and is never read, so that
    the gradients which it takes along reach no token.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


def _bundle(lengths: list[int], device: torch.device) -> _Bundle:
    """Its mask still says only which places hold tokens of the same tree."""
    length_G1 = torch.tensor(lengths, device=device)[:, None]
    column_1T = torch.arange(max(lengths), device=device)[None]
    is_token_GT = column_1T < length_G1
    start_G1 = length_G1.cumsum(0) - length_G1
    token_GT = torch.where(is_token_GT, start_G1 + column_1T, 0)
    same_GTT = is_token_GT[:, :, None] & is_token_GT[:, None, :]
    return _Bundle((sum(lengths),), token_GT, is_token_GT.flatten().nonzero().flatten(), same_GTT[:, None])


def _behind(queries: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """[queries, seen + queries]: True where a token may look at or before itself, `seen` tokens standing before all."""
    allowed = torch.ones(queries, seen + queries, dtype=torch.bool, device=device).tril(seen)
    return allowed if window is None else allowed.triu(seen - window + 1)
