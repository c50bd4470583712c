import numpy as np
import pytest

from lit_pref.data.batches.loading import (
    BatchRows,
    BatchSampler,
    DataPosition,
    FixedBatchSampler,
    Steps,
    TreeDataset,
    batch_loader,
)
from lit_pref.data.batches.order import Batching
from lit_pref.types import StepWeight, TokenTree

LENGTHS = np.array([(7 * i) % 23 + 1 for i in range(101)], np.int32)
WAYS = {
    "rows": {},
    "budget": {"max_tokens": 64, "padded": False},
    "padded budget": {"max_tokens": 64, "padded": True},
}


TOKENS = np.array([(5 * i) % 17 + 1 for i in range(101)])  # that a language-model loss would be the mean over


def drawn(epoch=0, shuffle=True, lengths=LENGTHS, batch_size=8, max_tokens=None, padded=True, accumulate=1, **settings):
    batching = Batching(np.asarray(lengths, np.int32), batch_size, max_tokens, padded)
    limit = settings.pop("limit", np.inf)
    sampler = BatchSampler(batching, shuffle, steps=lambda: Steps(accumulate, limit), **({"seed": 3} | settings))
    sampler.set_epoch(epoch)
    made = list(sampler)
    assert len(made) == min(len(sampler), limit) or "resume_at" in settings
    return made


def batches(**settings):
    """Rows of each batch; none of those that only keep a rank in step."""
    return [list(batch.rows) if batch.weight.rows else [] for batch in drawn(**settings)]


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
    # 101 rows in batches of 8 are 13, which no number of ranks here divides.
    assert sorted(row for part in parts for batch in part for row in batch) == list(range(101))


@each_way
def test_more_ranks_than_rows_still_each_get_a_batch(way):
    parts = [drawn(lengths=[6, 5], batch_size=2, rank=rank, world_size=4, **way) for rank in range(4)]
    assert [len(part) for part in parts] == [1, 1, 1, 1]
    counted = [row for (batch,) in parts if batch.weight.rows for row in batch.rows]
    fillers = [batch for (batch,) in parts if not batch.weight.rows]
    assert sorted(counted) == [0, 1]
    assert fillers and all(batch == BatchRows([1], StepWeight(0, 0)) for batch in fillers)  # the cheapest row


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
    settings = {"rank": world_size - 1, "world_size": world_size, "accumulate": 2, "imitated_tokens": int, **way}
    whole = drawn(epoch=2, **settings)
    assert drawn(epoch=2, resume_at=DataPosition(2, seen), **settings) == whole[seen:]
    assert drawn(epoch=2, resume_at=DataPosition(1, seen), **settings) == whole


@each_way
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("limit", [np.inf, 3])
def test_a_step_is_the_mean_over_its_rows_and_over_its_tokens(way, world_size, accumulate, limit):
    values, of_tokens = np.random.default_rng(0).normal(size=(2, 101))  # of each row, the sum over its tokens
    settings = {"world_size": world_size, "accumulate": accumulate, "limit": limit, "epoch": 1, **way}
    parts = [drawn(rank=rank, imitated_tokens=lambda row: TOKENS[row], **settings) for rank in range(world_size)]
    for start in range(0, len(parts[0]), accumulate):
        step = [batch for part in parts for batch in part[start : start + accumulate]]
        rows = np.concatenate([batch.rows for batch in step if batch.weight.rows])
        # As Lightning has it: losses divided by `accumulate`, summed over a rank's batches, averaged over ranks.
        places = accumulate * world_size
        over_rows = sum(batch.weight.rows * values[batch.rows].mean() for batch in step) / places
        assert over_rows == pytest.approx(values[rows].mean(), abs=1e-12)
        means = [of_tokens[batch.rows].sum() / TOKENS[batch.rows].sum() for batch in step]
        over_tokens = sum(batch.weight.tokens * mean for batch, mean in zip(step, means, strict=True)) / places
        assert over_tokens == pytest.approx(of_tokens[rows].sum() / TOKENS[rows].sum(), abs=1e-12)


def test_batches_of_one_size_weigh_exactly_one():
    assert {batch.weight.rows for batch in drawn(lengths=LENGTHS[:96], accumulate=2, world_size=3, rank=1)} == {1.0}


def test_tokens_that_nobody_counts_have_no_weight():
    # A loss that uses it all the same shows it.
    assert all(np.isnan(batch.weight.tokens) for batch in drawn())


def test_a_fixed_sampler_repeats_its_first_epoch():
    sampler = FixedBatchSampler(Batching(LENGTHS, 8), shuffle=True, seed=3)
    sampler.set_epoch(5)
    assert [list(batch.rows) for batch in sampler] == batches(epoch=0) != batches(epoch=5)


def test_an_ordered_loader_gives_rows_shortest_first():
    for way in WAYS.values():
        order = [row for batch in batches(shuffle=False, **way) for row in batch]
        assert LENGTHS[order].tolist() == sorted(LENGTHS)


def test_a_loader_collates_whole_batches():
    trees = [TokenTree((1, 2), ((3,), (4, 5))), TokenTree((6,), ((7, 8), (9,)))]
    pairs = TreeDataset("pair", trees, pad_id=0, layout="shared", values=[0.5, 2.0])
    (batch,) = batch_loader(pairs, BatchSampler(Batching(pairs.lengths, 2), shuffle=False, seed=0))
    # lengths 5 and 4: the second row is shorter and comes first
    assert batch.kind == "pair" and batch.row_R.tolist() == [1, 0]
    assert batch.value_R.tolist() == [2.0, 0.5]
    assert batch.trees.length_K.tolist() == [2, 1, 1, 2]
    assert pairs[BatchRows([0], StepWeight(0.25, 0.5))].weight == StepWeight(0.25, 0.5)
    assert [pairs.imitated_tokens(row) for row in (0, 1)] == [1, 2]  # those of chosen

    demonstrations = TreeDataset("demonstration", [TokenTree((1, 2), ((3,),))], pad_id=0, layout="shared")
    assert demonstrations[BatchRows([0])].trees.input_ids_BT.tolist() == [[1, 2, 3]]
    assert demonstrations[BatchRows([0], StepWeight(0.25, 0.5))].weight == StepWeight(0.25, 0.5)
    assert demonstrations.imitated_tokens(0) == 1


@pytest.mark.parametrize("name", ["batch_size", "max_tokens"])
def test_a_batch_needs_a_row(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        Batching(LENGTHS, **({"batch_size": 1} | {name: 0}))
