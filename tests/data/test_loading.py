import pytest

from lit_pref.data.loading import LengthWindowBatches, PairCollate, TreeCollate, TreeDataset, batch_loader
from lit_pref.types import TokenTree

LENGTHS = [(7 * i) % 23 + 1 for i in range(101)]


def batches(epoch=0, **settings):
    sampler = LengthWindowBatches(**({"lengths": LENGTHS, "batch_size": 8, "shuffle": True, "seed": 3} | settings))
    sampler.set_epoch(epoch)
    made = list(sampler)
    assert len(made) == len(sampler)
    return made


def test_every_row_comes_once_an_epoch():
    assert sorted(row for batch in batches() for row in batch) == list(range(101))


def test_the_order_is_a_function_of_seed_and_epoch():
    assert batches() == batches()
    assert batches(seed=4) != batches()
    assert batches(epoch=1) != batches()


def test_batches_hold_rows_of_like_length():
    # Within a window every batch spans fewer lengths than rows drawn blindly, whose spread would be about 22.
    spread = [max(LENGTHS[row] for row in batch) - min(LENGTHS[row] for row in batch) for batch in batches()]
    assert sum(spread) / len(spread) < 4


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_share_the_epoch_in_equal_numbers_of_batches(world_size):
    parts = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    together = [row for part in parts for batch in part for row in batch]
    assert set(together) == set(range(101))
    # 101 rows in batches of 8 are 13 batches; whole rounds repeat at most world_size - 1 of them.
    assert len(together) <= 101 + 8 * (world_size - 1)


def test_more_ranks_than_batches_still_each_get_one():
    parts = [batches(lengths=[5, 6], batch_size=2, rank=rank, world_size=4) for rank in range(4)]
    assert [len(part) for part in parts] == [1, 1, 1, 1]


def test_an_ordered_loader_gives_rows_shortest_first():
    order = [row for batch in batches(shuffle=False) for row in batch]
    assert [LENGTHS[row] for row in order] == sorted(LENGTHS)


def test_a_loader_collates_whole_batches():
    trees = [TokenTree((1, 2), ((3,), (4, 5))), TokenTree((6,), ((7, 8), (9,)))]
    pairs = TreeDataset(trees, PairCollate(pad_id=0, layout="shared", margins=[0.5, 2.0]))
    (batch,) = batch_loader(pairs, LengthWindowBatches(pairs.lengths, 2, shuffle=False, seed=0))
    # lengths 5 and 4: the second row is shorter and comes first
    assert batch.index_P.tolist() == [1, 0]
    assert batch.margin_P.tolist() == [2.0, 0.5]
    assert batch.trees.length_K.tolist() == [2, 1, 1, 2]

    demonstrations = TreeDataset([TokenTree((1, 2), ((3,),))], TreeCollate(pad_id=0, layout="shared"))
    assert demonstrations[[0]].input_ids_BT.tolist() == [[1, 2, 3]]


def test_a_batch_needs_a_row():
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        LengthWindowBatches([1], 0, shuffle=False, seed=0)
