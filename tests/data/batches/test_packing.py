import random
import sys

import pytest
import torch

from lit_pref.data.batches.packing import collate_rows, collate_trees, pack_rows
from lit_pref.types import TokenTree

PAD = 99
FIRST = TokenTree((1, 2, 3), ((11, 12), (21,)))
SECOND = TokenTree((5,), ((51,),))


def test_a_row_of_two_trees():
    # Columns: 0-2 the first prompt, 3-4 and 5 its completions, 6 the second prompt, 7 its completion.
    batch = collate_trees([[FIRST, SECOND]], pad_id=PAD)
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 11, 12, 21, 5, 51]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1]]  # both completions go on from the prompt's 3
    assert batch.tree_BT.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1]]
    assert batch.branch_BT.tolist() == [[0, 0, 0, 1, 1, 2, 0, 1]]
    assert batch.predictor_N.tolist() == [2, 3, 2, 6]  # the prompt's last token predicts both first tokens
    assert batch.target_N.tolist() == [11, 12, 21, 51]
    assert batch.completion_N.tolist() == [0, 0, 1, 2]
    assert batch.last_K.tolist() == [4, 5, 7]
    assert batch.length_K.tolist() == [2, 1, 1]
    assert batch.num_tokens == (3 + 2) + (3 + 1) + (1 + 1)
    assert not batch.plain
    assert all(t.dtype == torch.long for t in batch if isinstance(t, torch.Tensor))


def test_rows_are_padded_on_the_right_and_indices_are_flat():
    batch = collate_trees([[SECOND], [FIRST]], pad_id=PAD)
    assert batch.input_ids_BT.tolist() == [[5, 51, PAD, PAD, PAD, PAD], [1, 2, 3, 11, 12, 21]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 0, 0, 0, 0], [0, 1, 2, 3, 4, 3]]
    assert batch.tree_BT.tolist() == [[0, 0, -1, -1, -1, -1], [0] * 6]
    assert batch.branch_BT.tolist() == [[0, 1, -1, -1, -1, -1], [0, 0, 0, 1, 1, 2]]
    # The second row starts at flat index 6.
    assert batch.predictor_N.tolist() == [0, 6 + 2, 6 + 3, 6 + 2]
    assert batch.last_K.tolist() == [1, 6 + 4, 6 + 5]


def test_repeated_prompts_keep_the_order_and_the_count_of_completions():
    shared, repeated = (collate_trees([[FIRST, SECOND]], PAD, shared=shared) for shared in (True, False))
    assert repeated.input_ids_BT.tolist() == [[1, 2, 3, 11, 12], [1, 2, 3, 21, PAD], [5, 51, PAD, PAD, PAD]]
    assert repeated.plain
    for field in ("target_N", "completion_N", "length_K"):
        assert torch.equal(getattr(shared, field), getattr(repeated, field))
    assert repeated.num_tokens == shared.num_tokens
    for batch in (shared, repeated):  # each completion's last token stands where last_K says
        assert batch.input_ids_BT.flatten()[batch.last_K].tolist() == [12, 21, 51]


@pytest.mark.parametrize(
    ("rows", "plain"),
    [([[SECOND], [SECOND]], True), ([[SECOND, SECOND]], False), ([[SECOND], [FIRST]], False)],
)
def test_plain_is_one_branch_of_one_tree_in_every_row(rows: list[list[TokenTree]], plain: bool):
    assert collate_trees(rows, PAD).plain is plain


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([[FIRST], []], "at least one tree"),
        ([[FIRST, TokenTree((), ((1,),))]], "tree 1: the prompt is empty"),
        ([[TokenTree((1,), ())]], "tree 0: a prompt without completions"),
        ([[FIRST], [TokenTree((1,), ((2,), ()))]], "tree 1: completion 1 is empty"),
    ],
)
def test_nothing_empty_is_laid_out(rows: list[list[TokenTree]], message: str):
    with pytest.raises(ValueError, match=message):
        collate_trees(rows, PAD)


def test_rows_carry_their_number_value_and_siblings():
    batch = collate_rows("pair", [[FIRST, SECOND]], numbers=[7, 3], pad_id=PAD, values=[0.5, 2.0])
    assert batch.kind == "pair" and batch.row_R.tolist() == [7, 3]
    assert batch.value_R is not None and batch.value_R.tolist() == [0.5, 2.0]
    # Two completions of the first row, one of the second.
    assert batch.sibling_K.tolist() == [0, 1, 0]
    assert collate_rows("demonstration", [[SECOND]], numbers=[0], pad_id=PAD).value_R is None


def test_a_key_tells_prompt_and_completion_apart_and_not_where_they_lie():
    trees = [
        FIRST,
        TokenTree((1, 2), ((3, 11, 12),)),  # the same tokens, the prompt one shorter
        TokenTree((1, 2, 3), ((21,), (11, 12))),
        SECOND,
    ]
    keys = collate_rows("any", [trees], range(4), PAD).key_K.tolist()
    assert len(set(keys)) == 4 and keys[:2] == [keys[4], keys[3]]
    for rows, shared in (([[tree] for tree in trees], True), ([trees], False)):
        assert collate_rows("any", rows, range(4), PAD, shared=shared).key_K.tolist() == keys


def test_rows_need_one_number_each():
    with pytest.raises(ValueError, match=r"1 trees need a number each.*got 2 numbers"):
        collate_rows("pair", [[FIRST]], numbers=[0, 1], pad_id=PAD)
    with pytest.raises(ValueError, match="got 1 numbers and 0 values"):
        collate_rows("pair", [[FIRST]], numbers=[0], pad_id=PAD, values=[])


def test_python_does_nothing_token_by_token():
    # 64 pairs are laid out with as many calls, Python's and the libraries', whether they have 60 or 600 tokens a part.
    def calls(tokens: int) -> int:
        ids = tuple(range(tokens))
        rows, counted = [[TokenTree(ids, (ids, ids))] for _ in range(64)], 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            collate_rows("pair", rows, range(64), PAD)
        finally:
            sys.setprofile(None)
        return counted

    collate_rows("pair", [[FIRST]], [0], PAD)  # what a first call imports
    assert calls(600) == calls(60) > 64


def test_rows_are_filled_first_fit_decreasing():
    # Decreasing: 7 6 4 3 → 7 opens a row (3 left), 6 another (4 left), 4 fits the second, 3 the first: both are full.
    assert pack_rows([3, 7, 4, 6], max_tokens=10) == [[1, 0], [3, 2]]
    assert pack_rows([], max_tokens=10) == []


def test_every_item_is_in_one_row_within_budget():
    draw = random.Random(0)
    lengths = [draw.randint(1, 100) for _ in range(500)]
    rows = pack_rows(lengths, max_tokens=128)
    assert sorted(index for row in rows for index in row) == list(range(500))
    assert all(sum(lengths[index] for index in row) <= 128 for row in rows)
    # First-fit decreasing never takes more than 11/9 of the best possible rows, plus one.
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 128) + 1


def test_an_item_longer_than_a_row_is_named():
    with pytest.raises(ValueError, match="item 1 takes 11 tokens, a row at most 10"):
        pack_rows([3, 11], max_tokens=10)
