"""The sieve that finds words by their hashes; words themselves are tested where they are used."""

import numpy as np

from lit_pref.syntax.words import Sieve


def test_a_sieve_finds_all_that_it_holds_and_few_others() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**64, 20, np.uint64)
    values = rng.integers(0, 2**64, 100_000, np.uint64)
    held = np.arange(0, len(values), 1000)
    values[held] = rng.choice(numbers, len(held))
    found = Sieve(numbers).places(values)
    assert set(held) <= set(found) and (np.diff(found) > 0).all()
    # 20 of 4,096 slots: 0.49% of the others on average, here with a standard deviation of 0.02 points.
    assert len(found) - len(held) < 0.006 * len(values)


def test_an_empty_sieve_finds_nothing() -> None:
    assert len(Sieve(np.array([], np.uint64)).places(np.arange(1000, dtype=np.uint64))) == 0
