import numpy as np
import pytest

from lit_pref.data.loading import (
    BatchRows,
    BatchSampler,
    DataPosition,
    PairCollate,
    TreeCollate,
    TreeDataset,
    batch_loader,
)
from lit_pref.data.order import Batching
from lit_pref.types import TokenTree

LENGTHS = np.array([(7 * i) % 23 + 1 for i in range(101)], np.int32)
WAYS = {
    "rows": {},
    "budget": {"max_tokens": 64, "padded": False},
    "padded budget": {"max_tokens": 64, "padded": True},
}


def drawn(epoch=0, shuffle=True, lengths=LENGTHS, batch_size=8, max_tokens=None, padded=True, **settings):
    batching = Batching(np.asarray(lengths, np.int32), batch_size, max_tokens, padded)
    sampler = BatchSampler(batching, shuffle, **({"seed": 3} | settings))
    sampler.set_epoch(epoch)
    made = list(sampler)
    assert len(made) == len(sampler) or "resume_at" in settings
    return made


def batches(**settings):
    return [list(batch.rows) for batch in drawn(**settings)]


each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@each_way
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_comes_once_an_epoch(way, shuffle):
    assert sorted(row for batch in batches(shuffle=shuffle, **way) for row in batch) == list(range(101))


@each_way
def test_the_order_is_a_function_of_seed_and_epoch(way):
    assert batches(**way) == batches(**way)
    assert batches(seed=4, **way) != batches(**way)
    assert batches(epoch=1, **way) != batches(**way)


def test_batches_hold_rows_of_like_length():
    # Within a window every batch spans fewer lengths than rows drawn blindly, whose spread would be about 22.
    spread = [np.ptp(LENGTHS[batch]) for batch in batches()]
    assert sum(spread) / len(spread) < 4


@each_way
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_share_the_epoch_in_equal_numbers_of_batches(way, world_size):
    parts = [batches(rank=rank, world_size=world_size, **way) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    together = [row for part in parts for batch in part for row in batch]
    assert set(together) == set(range(101))
    if way:  # a budget's batches can be halved until every rank has one more, and nothing comes twice
        assert len(together) == 101
    else:  # 101 rows in batches of 8 are 13 batches; whole rounds repeat at most world_size - 1 of them
        assert len(together) <= 101 + 8 * (world_size - 1)


@each_way
def test_more_ranks_than_rows_still_each_get_a_batch(way):
    parts = [batches(lengths=[5, 6], batch_size=2, rank=rank, world_size=4, **way) for rank in range(4)]
    assert [len(part) for part in parts] == [1, 1, 1, 1]


@pytest.mark.parametrize("way", [WAYS["budget"], WAYS["padded budget"]], ids=["budget", "padded budget"])
@pytest.mark.parametrize("world_size", [1, 4])
def test_a_budget_gives_every_epoch_as_many_batches(way, world_size):
    # Lightning counts an epoch's batches once and would cut a longer one short.
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    settings = {"lengths": lengths, "rank": world_size - 1, "world_size": world_size, **way}
    assert len({len(drawn(epoch=epoch, **settings)) for epoch in range(30)}) == 1


@pytest.mark.parametrize("way", [WAYS["budget"], WAYS["padded budget"]], ids=["budget", "padded budget"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_no_batch_takes_more_than_the_budget_but_a_longer_row_alone(way, shuffle):
    lengths = np.array([*range(1, 64), 100, 65, *range(1, 64)])
    made = batches(lengths=lengths, shuffle=shuffle, **way)
    for batch in made:
        taken = len(batch) * lengths[batch].max() if way["padded"] else lengths[batch].sum()
        assert taken <= 64 or len(batch) == 1
    assert [63] in made and [64] in made
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))


def test_rows_behind_one_another_fill_the_budget():
    lengths = np.random.default_rng(1).integers(20, 700, 3000)
    made = batches(lengths=lengths, max_tokens=4096, padded=False)
    filled = np.array([lengths[batch].sum() for batch in made]) / 4096
    assert filled.mean() > 0.97  # best fit leaves little; cut in order it would be 0.95 at most


@each_way
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("seen", [0, 1, 4])
def test_a_resumed_epoch_goes_on_with_the_very_next_batch(way, world_size, seen):
    settings = {"rank": world_size - 1, "world_size": world_size, "accumulate": 2, **way}
    whole = drawn(epoch=2, **settings)
    assert drawn(epoch=2, resume_at=DataPosition(2, seen), **settings) == whole[seen:]
    assert drawn(epoch=2, resume_at=DataPosition(1, seen), **settings) == whole


@each_way
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_is_the_mean_over_its_rows(way, world_size, accumulate):
    values = np.random.default_rng(0).normal(size=101)
    parts = [
        drawn(rank=rank, world_size=world_size, accumulate=accumulate, epoch=1, **way) for rank in range(world_size)
    ]
    for start in range(0, len(parts[0]), accumulate):
        step = [batch for part in parts for batch in part[start : start + accumulate]]
        # As Lightning has it: losses divided by `accumulate`, summed over a rank's batches, averaged over ranks.
        stepped = sum(batch.weight * values[batch.rows].mean() / accumulate for batch in step) / world_size
        assert stepped == pytest.approx(np.concatenate([values[batch.rows] for batch in step]).mean(), abs=1e-12)


def test_batches_of_one_size_weigh_exactly_one():
    assert {batch.weight for batch in drawn(lengths=LENGTHS[:96], accumulate=2, world_size=3, rank=1)} == {1.0}


def test_an_ordered_loader_gives_rows_shortest_first():
    for way in WAYS.values():
        order = [row for batch in batches(shuffle=False, **way) for row in batch]
        assert LENGTHS[order].tolist() == sorted(LENGTHS)


def test_a_loader_collates_whole_batches():
    trees = [TokenTree((1, 2), ((3,), (4, 5))), TokenTree((6,), ((7, 8), (9,)))]
    pairs = TreeDataset(trees, PairCollate(pad_id=0, layout="shared", margins=[0.5, 2.0]))
    (batch,) = batch_loader(pairs, BatchSampler(Batching(pairs.lengths, 2), shuffle=False, seed=0))
    # lengths 5 and 4: the second row is shorter and comes first
    assert batch.index_P.tolist() == [1, 0]
    assert batch.margin_P.tolist() == [2.0, 0.5]
    assert batch.trees.length_K.tolist() == [2, 1, 1, 2]
    assert pairs[BatchRows([0], 0.25)].weight == 0.25

    demonstrations = TreeDataset([TokenTree((1, 2), ((3,),))], TreeCollate(pad_id=0, layout="shared"))
    assert demonstrations[BatchRows([0])].input_ids_BT.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("name", ["batch_size", "max_tokens"])
def test_a_batch_needs_a_row(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        Batching(LENGTHS, **({"batch_size": 1} | {name: 0}))
