"""What is held out: whole prompts, as near to the count as they can come, the same for a seed."""

import numpy as np
import pytest

from lit_pref.data.formats.shares import held_out_rows


def sizes_to_prompts(*sizes: int) -> np.ndarray:
    """Prompt 7, 14, … as often as the sizes say, mixed."""
    prompts = np.repeat(np.arange(1, len(sizes) + 1) * 7, sizes)
    return np.random.default_rng(0).permutation(prompts)


@pytest.mark.parametrize(
    ("sizes", "wanted", "expected"),
    [
        ((4,) * 50, 20, {20}),  # 200 pairs, four a prompt
        ((4,) * 50, 10, {8, 12}),  # 10 are wanted, which no number of fours makes
        ((1,) * 40, 10, {10}),
        ((1,) * 4, 1, {1}),  # never none
        ((3, 3), 1, {3}),
        ((1, 9), 9, {9}),
        ((1, 9), 1, {1}),
        ((60, *[1] * 40), 10, {10}),  # the large one fits nowhere
        ((2, 1), 3, {2}),  # never all
        ((5,), 2, {0}),
        ((1,) * 40, 0, {0}),
        ((), 2, {0}),
    ],
)
def test_whole_prompts_as_near_to_the_count_as_they_come(sizes, wanted, expected):
    prompts = sizes_to_prompts(*sizes)
    for seed in range(20):
        rows = held_out_rows(prompts, wanted, seed)
        assert len(rows) in expected and rows.dtype == np.int32 and np.array_equal(rows, np.unique(rows))
        assert not set(prompts[rows]) & set(np.delete(prompts, rows))
        assert np.array_equal(rows, held_out_rows(prompts, wanted, seed))


def test_the_draw_is_of_rows_and_not_of_what_prompts_are_called():
    prompts = np.arange(40)
    drawn = {tuple(held_out_rows(prompts, 10, seed)) for seed in range(10)}
    assert len(drawn) == 10
    assert drawn == {tuple(held_out_rows(-prompts, 10, seed)) for seed in range(10)}
    # With a prompt a row it is numpy's first draws.
    assert list(held_out_rows(prompts, 10, 3)) == sorted(np.random.default_rng(3).permutation(40)[:10])
