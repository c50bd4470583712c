import pytest
import torch

from lit_pref.data.batches.packing import collate_trees
from lit_pref.models.attention.tree_attention import tree_attention_mask
from lit_pref.models.attention.tree_by_tree import attend, plan_of
from lit_pref.types import TokenTree

# Two trees in one row, one column of padding: prompt a b, branches c d and e; prompt f, branch g. Positions in the row:
#   a0 b1 | c2 d3 | e2 | f0 | g1 | padding
TREES = [TokenTree((1, 2), ((3, 4), (5,))), TokenTree((6,), ((7,),))]
LONGER = TokenTree((8, 9), ((10, 11, 12, 13, 14, 15),))


def allowed(window: int | None = None) -> list[list[int]]:
    """The columns which each column of the first row may look at."""
    batch = collate_trees([TREES, [LONGER]], pad_id=0)
    mask_B1TT = tree_attention_mask(batch.tree_BT, batch.branch_BT, batch.position_ids_BT, window)
    assert mask_B1TT.shape == (2, 1, 8, 8)
    assert mask_B1TT.dtype == torch.bool
    return [row.nonzero().flatten().tolist() for row in mask_B1TT[0, 0]]


def test_a_token_sees_its_prompt_and_its_own_branch():
    a, b, c, d, e, f, g, padding = range(8)
    assert allowed() == [[a], [a, b], [a, b, c], [a, b, c, d], [a, b, e], [f], [f, g], [padding]]


def test_a_window_counts_positions_not_columns():
    # Two positions, itself included: e at position 2 sees b at position 1, though c and d lie between them.
    a, b, c, d, e, f, g, padding = range(8)
    assert allowed(window=2) == [[a], [a, b], [b, c], [c, d], [b, e], [f], [f, g], [padding]]


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_attended_to_in_fp32_where_there_is_a_way_back(autocast: bool):
    # A short tree and a long one. In fp32 the sums are those of the rounded inputs, rounded once at the end.
    long = TokenTree((8,) * 150, ((9,) * 60, (10,) * 40))
    plan = list(plan_of(collate_trees([[*TREES, long]], pad_id=0), None))
    tokens = sum(length for piece in plan for length in piece.lengths)
    draws = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, tokens, 8, generator=draws).bfloat16() for _ in range(3)]

    def attended(dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [x.clone().to(dtype).requires_grad_() for x in given]
        with torch.autocast("cpu", enabled=autocast and dtype == torch.bfloat16):
            out = attend(*inputs, plan, 0.0, None)
        assert out.dtype == dtype
        out.backward(torch.ones_like(out))
        return [out.detach(), *(x.grad for x in inputs if x.grad is not None)]

    for half, whole in zip(attended(torch.bfloat16), attended(torch.float32), strict=True):
        assert torch.equal(half, whole.bfloat16())
