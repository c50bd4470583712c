"""Scaled-dot-product attention that goes through the trees of a batch one after another, or side by side if short.

Rows are laid end to end. A plan says what they consist of, piece by piece; it is made once a batch and serves all
layers. Queries may be those of only some tokens (`chosen`); keys and values are always those of all.
Not covered: FlexAttention, and which layers get which plan (`tree_kernels`).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lit_pref.types import TreeBatch

SHORT = 192  # tokens; below, trees are attended to side by side under one mask, since calls cost more than zeros


class _Padding(NamedTuple):
    lengths: tuple[int, ...]
    queries: tuple[int, ...]  # of each length, how many tokens look; all of them but in a plan of `chosen`


class _Places(NamedTuple):
    """Sequences of several lengths one after another, and as the rows of a padded [G, T]."""

    token_GT: Tensor  # of each place, the token that stands there; any token in the padding
    place_S: Tensor  # of each token, its place in the flattened [G, T]


class _Bundle(NamedTuple):
    """Short trees that lie one after another, attended to side by side: padded and masked."""

    lengths: tuple[int, ...]
    queries: tuple[int, ...]
    keys: _Places
    lookers: _Places  # the tokens that look, [G, Q] as they are padded
    allowed_G1QT: Tensor


class _Tree(NamedTuple):
    """A long tree: its prompt with the first branch is one causal sequence, each other branch sees the prompt."""

    lengths: tuple[int, ...]  # of the prompt with its first branch, and of the others
    queries: tuple[int, ...]
    prompt: int
    allowed: tuple[Tensor | None, ...]  # None is causal


Piece = _Padding | _Bundle | _Tree


def tree_mask(same_tree_BTT: Tensor, branch_BT: Tensor, position_BT: Tensor, window: int | None) -> Tensor:
    """[B, T, T], True where a token may look: back within its tree, at the prompt or at its own branch.

    same_tree_BTT: whether both are tokens of one tree. Padding sees only itself: a softmax over nothing is NaN.
    """
    width = branch_BT.shape[1]
    ones_TT = torch.ones(width, width, dtype=torch.bool, device=branch_BT.device)
    same_branch_BTT = branch_BT[:, :, None] == branch_BT[:, None, :]
    prompt_BTT = branch_BT[:, None, :] == 0
    allowed_BTT = ones_TT.tril() & same_tree_BTT & (same_branch_BTT | prompt_BTT)
    if window is not None:
        allowed_BTT &= position_BT[:, :, None] - position_BT[:, None, :] < window
    return allowed_BTT | torch.eye(width, dtype=torch.bool, device=branch_BT.device)


def plan_of(batch: TreeBatch, window: int | None) -> Iterator[Piece]:
    """What the rows of a batch, laid end to end, consist of.

    window: positions that a token sees at most, itself included.
    """
    width, device = batch.input_ids_BT.shape[1], batch.input_ids_BT.device
    branch_F, position_F = batch.branch_BT.flatten(), batch.position_ids_BT.flatten()
    for row, in_row in groupby(batch.spans, key=lambda span: span.row):
        end = 0
        for short, group in groupby(in_row, key=lambda span: span.prompt + sum(span.branches) <= SHORT):
            spans = list(group)
            if short:
                bundle = _bundle([span.prompt + sum(span.branches) for span in spans], device)
                places_GT = row * width + end + bundle.keys.token_GT
                same_G1TT = bundle.allowed_G1QT
                allowed_GTT = tree_mask(same_G1TT[:, 0], branch_F[places_GT], position_F[places_GT], window)
                yield bundle._replace(allowed_G1QT=allowed_GTT[:, None])
                end += bundle.lengths[0]
            for span in spans if not short else ():
                first, *others = span.branches
                causal = window is None or span.prompt + first <= window
                allowed = [None if causal else _behind(span.prompt + first, 0, window, device)]
                allowed += [_behind(length, span.prompt, window, device) for length in others]
                lengths = (span.prompt + first, *others)
                yield _Tree(lengths, lengths, span.prompt, tuple(allowed))
                end += span.prompt + sum(span.branches)
        if end < width:
            yield _Padding((width - end,), (width - end,))


def chosen(plan: Sequence[Piece], token_n: Tensor) -> Iterator[Piece]:
    """The plan by which these tokens look and no others; flat indices, ascending, each once."""
    starts = torch.tensor([0, *(length for piece in plan for length in piece.lengths)]).cumsum(0)
    ends = torch.searchsorted(token_n.cpu(), starts).tolist()
    parts = iter(zip(starts.tolist(), pairwise(ends), strict=False))
    for piece in plan:
        own = [token_n[first:end] - start for start, (first, end) in islice(parts, len(piece.lengths))]
        queries = tuple(map(len, own))
        if isinstance(piece, _Padding):
            yield piece._replace(queries=queries)
        elif isinstance(piece, _Tree):
            allowed = tuple(map(_rows, own, piece.lengths, piece.allowed))
            yield piece._replace(queries=queries, allowed=allowed)
        else:
            yield _choose_side_by_side(piece, own[0])


def attend(
    query: Tensor, key: Tensor, value: Tensor, plan: Sequence[Piece], dropout: float, scale: float | None
) -> Tensor:
    """[1, S, H, d] of the plan's queries [B, H, T, d], laid end to end; B = 1 unless all tokens look."""
    if _goes_back_slowly(query):
        with torch.autocast("cpu", enabled=False):
            return attend(query.float(), key.float(), value.float(), plan, dropout, scale).to(query.dtype)
    by_heads = partial(
        scaled_dot_product_attention, dropout_p=dropout, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    # One split a tensor: slices would each make a gradient of the whole row's size.
    lengths = [length for piece in plan for length in piece.lengths]
    queries = [count for piece in plan for count in piece.queries]
    tensors = ((query, queries), (key, lengths), (value, lengths))
    parts = zip(*(torch.split(_end_to_end(x), sizes, 2) for x, sizes in tensors), strict=True)
    outputs: list[Tensor] = []
    for piece in plan:
        several = list(islice(parts, len(piece.lengths)))
        if isinstance(piece, _Tree):
            outputs += _by_branch(piece, several, by_heads)
        elif isinstance(piece, _Bundle) and any(piece.queries):
            outputs.append(_side_by_side(piece, several[0], by_heads))
        else:
            outputs.append(torch.zeros_like(several[0][0].transpose(1, 2)))
    return torch.cat(outputs, 1)


def _goes_back_slowly(query: Tensor) -> bool:
    """On a CPU the backward pass in half precision takes three times as long as in fp32, at 150 tokens (torch 2.13)."""
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    return is_half and query.device.type == "cpu" and query.requires_grad and torch.is_grad_enabled()


def rearranged(x: Tensor, there: Tensor, back: Tensor) -> Tensor:
    """x[there]; `back` is where each row of x has gone, so that its gradient is found by indexing too."""
    moved: Tensor = _Rearranged.apply(x, there, back)  # type: ignore[no-untyped-call]
    return moved


def _end_to_end(x: Tensor) -> Tensor:
    """[B, H, T, d] to [1, H, B * T, d]."""
    return x if len(x) == 1 else x.transpose(1, 2).reshape(1, -1, x.shape[1], x.shape[3]).transpose(1, 2)


def _by_branch(tree: _Tree, parts: "list[tuple[Tensor, ...]]", by_heads: Callable[..., Tensor]) -> list[Tensor]:
    """[1, queries, H, d] of each part."""
    outputs = []
    _, root_key, root_value = (x[:, :, : tree.prompt] for x in parts[0])
    for number, ((q, k, v), allowed) in enumerate(zip(parts, tree.allowed, strict=True)):
        if not q.shape[2]:
            outputs.append(q.transpose(1, 2))
            continue
        if number:
            k, v = torch.cat([root_key, k], 2), torch.cat([root_value, v], 2)
        outputs.append(by_heads(q, k, v, allowed, is_causal=allowed is None).transpose(1, 2))
    return outputs


def _side_by_side(bundle: _Bundle, parts: tuple[Tensor, ...], by_heads: Callable[..., Tensor]) -> Tensor:
    """[1, queries, H, d]."""

    def padded(x: Tensor, places: _Places) -> Tensor:
        flat = rearranged(x[0].transpose(0, 1), places.token_GT.flatten(), places.place_S)
        return flat.view(*places.token_GT.shape, *flat.shape[1:]).transpose(1, 2)

    q, k, v = (padded(x, places) for x, places in zip(parts, (bundle.lookers, *(bundle.keys,) * 2), strict=True))
    out_GQHd = by_heads(q, k, v, bundle.allowed_G1QT).transpose(1, 2)
    token_GQ, place_S = bundle.lookers
    out_PHd = out_GQHd.reshape(-1, *out_GQHd.shape[2:])
    if bundle.lookers is bundle.keys:
        return rearranged(out_PHd, place_S, token_GQ.flatten())[None]
    # Padding among some tokens' queries looks at other tokens than itself: its gradient must be 0.
    return out_PHd.index_select(0, place_S)[None]


class _Rearranged(torch.autograd.Function):
    """Rows to other places and, in the backward pass, back: a copy, where indexing would add up gradients row by row.

    Exact since each token has one place. What lies in the padding looks only at itself and is never read, so that
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
    places, is_token_GT = _places(torch.tensor(lengths, device=device))
    same_GTT = is_token_GT[:, :, None] & is_token_GT[:, None, :]
    total = (sum(lengths),)
    return _Bundle(total, total, places, places, same_GTT[:, None])


def _places(length_G: Tensor) -> tuple[_Places, Tensor]:
    """And which of the places hold tokens, [G, T]."""
    column_1T = torch.arange(int(length_G.max()), device=length_G.device)[None]
    is_token_GT = column_1T < length_G[:, None]
    start_G = length_G.cumsum(0) - length_G
    token_GT = torch.where(is_token_GT, start_G[:, None] + column_1T, 0)
    return _Places(token_GT, is_token_GT.flatten().nonzero().flatten()), is_token_GT


def _choose_side_by_side(bundle: _Bundle, token_q: Tensor) -> _Bundle:
    trees, width = bundle.keys.token_GT.shape
    place_q = bundle.keys.place_S[token_q]
    lookers, _ = _places(torch.bincount(place_q // width, minlength=trees))
    if not len(token_q):
        return bundle._replace(queries=(0,), lookers=lookers)
    # Padding queries get an arbitrary token's mask; their outputs are never read.
    column_GQ = (place_q % width)[lookers.token_GT]
    tree_G1 = torch.arange(trees, device=token_q.device)[:, None]
    allowed_GQT = bundle.allowed_G1QT[:, 0][tree_G1, column_GQ]
    return bundle._replace(queries=(len(token_q),), lookers=lookers, allowed_G1QT=allowed_GQT[:, None])


def _behind(queries: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """[queries, seen + queries]: True where a token may look at or before itself, `seen` tokens standing before all."""
    allowed = torch.ones(queries, seen + queries, dtype=torch.bool, device=device).tril(seen)
    return allowed if window is None else allowed.triu(seen - window + 1)


def _rows(token_q: Tensor, length: int, allowed: Tensor | None) -> Tensor:
    """A part's mask at some of its tokens."""
    if allowed is not None:
        return allowed[token_q]
    return torch.arange(length, device=token_q.device) <= token_q[:, None]
