"""Token trees to batches: prompts laid down once, followed by their completions, or repeated before each.

Not covered: tokenizing, the order of the data, and how many trees a batch takes; padding always stands on the right.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import torch

from lit_pref.types import RowBatch, RowLayout, TokenTree, TreeBatch, TreeSpan


class _Segment(NamedTuple):
    """A prompt or a completion as it lies in its row."""

    row: int
    start: int  # column of its first token
    length: int
    tree: int
    branch: int  # 0 is the prompt
    first: int  # position id of its first token
    root: int  # column of its prompt's last token


def collate_trees(rows: Sequence[Sequence[TokenTree]], pad_id: int, shared: bool = True) -> TreeBatch:
    """Lay out rows of one or several trees each, padded on the right with `pad_id` to the longest row.

    shared: False gives each completion a row of its own with its prompt repeated before it, completions numbered as
        they would be otherwise: the layout for models which cannot share prompts, and what peers process.
    Raises ValueError for an empty batch, row, prompt or completion, and for a prompt without completions.
    """
    trees = [tree for row in rows for tree in row]
    _check(rows, trees)
    if not shared:
        rows = [[TokenTree(tree.prompt_ids, (ids,))] for tree in trees for ids in tree.completion_ids]
    plain = all(len(row) == 1 and len(row[0].completion_ids) == 1 for row in rows)

    width = max(sum(tree.shared_length for tree in row) for row in rows)
    segments = np.array([segment for index, row in enumerate(rows) for segment in _segments(index, row)])
    row_S, start_S, length_S, tree_S, branch_S, first_S, root_S = segments.T
    end_S = np.cumsum(length_S)
    offset_M = np.arange(end_S[-1]) - np.repeat(end_S - length_S, length_S)  # M tokens without padding
    place_M = np.repeat(row_S * width + start_S, length_S) + offset_M
    ids_M = np.fromiter(
        chain.from_iterable(chain(t.prompt_ids, *t.completion_ids) for row in rows for t in row), np.int64, end_S[-1]
    )

    shape, size = (len(rows), width), len(rows) * width
    input_ids, tree, branch = np.full(size, pad_id), np.full(size, -1), np.full(size, -1)
    position = np.zeros(size, np.int64)  # 0 in the padding: a row may hold more tokens than a model has positions
    input_ids[place_M] = ids_M
    position[place_M] = np.repeat(first_S, length_S) + offset_M
    tree[place_M] = np.repeat(tree_S, length_S)
    branch[place_M] = np.repeat(branch_S, length_S)

    # The prompt's last token predicts a completion's first one; after that, each token predicts the next.
    is_scored_M = np.repeat(branch_S > 0, length_S)
    predictor_M = np.where(offset_M == 0, np.repeat(row_S * width + root_S, length_S), place_M - 1)
    length_K = length_S[branch_S > 0]
    return TreeBatch(
        input_ids_BT=torch.from_numpy(input_ids.reshape(shape)),
        position_ids_BT=torch.from_numpy(position.reshape(shape)),
        tree_BT=torch.from_numpy(tree.reshape(shape)),
        branch_BT=torch.from_numpy(branch.reshape(shape)),
        predictor_N=torch.from_numpy(predictor_M[is_scored_M]),
        target_N=torch.from_numpy(ids_M[is_scored_M]),
        completion_N=torch.from_numpy(np.repeat(np.arange(len(length_K)), length_K)),
        last_K=torch.from_numpy((row_S * width + start_S + length_S - 1)[branch_S > 0]),
        length_K=torch.from_numpy(length_K),
        num_tokens=sum(tree.repeated_length for tree in trees),
        plain=plain,
        spans=tuple(_spans(rows)),
    )


def collate_rows(
    kind: str,
    rows: Sequence[Sequence[TokenTree]],
    numbers: Sequence[int],
    pad_id: int,
    values: Sequence[float] | None = None,
    shared: bool = True,
) -> RowBatch:
    """Lay out rows of a data set, each a tree: `kind` says what they are.

    numbers, values: one a tree, in the order in which the trees stand in the rows.
    Raises ValueError as `collate_trees` does, and for a wrong count.
    """
    trees = [tree for row in rows for tree in row]
    if len(numbers) != len(trees) or (values is not None and len(values) != len(trees)):
        given = f"{len(numbers)} numbers" + ("" if values is None else f" and {len(values)} values")
        raise ValueError(f"{len(trees)} trees need a number each, and a value each or none at all; got {given}")
    siblings = chain.from_iterable(range(len(tree.completion_ids)) for tree in trees)
    return RowBatch(
        trees=collate_trees(rows, pad_id, shared),
        kind=kind,
        row_R=torch.tensor(numbers, dtype=torch.long),
        value_R=None if values is None else torch.tensor(values, dtype=torch.float32),
        sibling_K=torch.tensor(list(siblings), dtype=torch.long),
        key_K=torch.tensor(list(chain.from_iterable(map(_keys, trees))), dtype=torch.long),
    )


def _keys(tree: TokenTree) -> Iterator[int]:
    """Of each completion with its prompt."""
    prompt = blake2b(array("i", tree.prompt_ids), digest_size=8)
    for ids in tree.completion_ids:
        digest = prompt.copy()
        digest.update(array("i", (-1, *ids)))  # no token: where the prompt ends counts too
        yield int.from_bytes(digest.digest(), "little", signed=True)


def lay_out(trees: Sequence[TokenTree], layout: RowLayout) -> list[list[TokenTree]]:
    """The rows that `collate_trees` and `collate_rows` take: all trees one after another, or one a row."""
    return [list(trees)] if layout == "packed" else [[tree] for tree in trees]


def pack_rows(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Fill rows of at most `max_tokens` with items of these lengths, best fit, longest first; rows hold indices.

    Every index occurs once. Raises ValueError for an item which is longer than a row.
    """
    rows: list[list[int]] = []
    of_room: dict[int, list[int]] = {}  # rows with so much room left
    rooms: list[int] = []  # its keys, sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        if length > max_tokens:
            raise ValueError(f"item {index} takes {length} tokens, a row at most {max_tokens}")
        place = bisect_left(rooms, length)
        if place == len(rooms):
            row, room = len(rows), max_tokens
            rows.append([])
        else:
            room = rooms[place]
            row = of_room[room].pop()
            if not of_room[room]:
                del of_room[room], rooms[place]
        rows[row].append(index)
        left = room - length
        if left not in of_room:
            of_room[left] = []
            insort(rooms, left)
        of_room[left].append(row)
    return rows


def _check(rows: Sequence[Sequence[TokenTree]], trees: Sequence[TokenTree]) -> None:
    if not rows or not all(rows):
        raise ValueError("a batch needs at least one row, and a row at least one tree")
    for index, tree in enumerate(trees):
        if not tree.prompt_ids:
            raise ValueError(f"tree {index}: the prompt is empty, so nothing predicts a completion's first token")
        if not tree.completion_ids:
            raise ValueError(f"tree {index}: a prompt without completions")
        if not all(tree.completion_ids):
            raise ValueError(f"tree {index}: completion {tree.completion_ids.index(())} is empty")


def _spans(rows: Sequence[Sequence[TokenTree]]) -> Iterator[TreeSpan]:
    for index, row in enumerate(rows):
        start = 0
        for tree in row:
            yield TreeSpan(index, start, len(tree.prompt_ids), tuple(map(len, tree.completion_ids)))
            start += tree.shared_length


def _segments(row: int, trees: Sequence[TokenTree]) -> list[_Segment]:
    segments = []
    start = 0
    for number, (prompt_ids, completion_ids) in enumerate(trees):
        prompt = len(prompt_ids)
        root = start + prompt - 1
        segments.append(_Segment(row, start, prompt, number, 0, 0, root))
        lengths = [len(ids) for ids in completion_ids]
        ends = accumulate(lengths, initial=start + prompt)
        for branch, (begin, length) in enumerate(zip(ends, lengths, strict=False), start=1):
            segments.append(_Segment(row, begin, length, number, branch, prompt, root))
        start += prompt + sum(lengths)
    return segments
