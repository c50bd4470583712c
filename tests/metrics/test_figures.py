"""Sums and counts against means over all items; two processes are two metrics whose states are added up."""

import math

import pytest
import torch

from lit_pref.metrics import Figures

BATCHES = [
    {
        "accuracy": torch.tensor([1.0, 0.0, 1.0]),
        "hit": torch.tensor([True, True, False, True]),
        "score": torch.tensor([3.0, -1.0]),
    },
    {"accuracy": torch.tensor([1.0]), "hit": torch.tensor([False]), "score": torch.tensor([7.5])},
]


def test_means_are_over_all_items_of_all_batches():
    figures = Figures()
    for batch in BATCHES:
        figures.update(batch)
    found = {name: value.item() for name, value in figures.compute().items()}
    assert found == pytest.approx({"accuracy": 3 / 4, "hit": 3 / 5, "score": 9.5 / 3})


def test_extremes_are_over_all_items_of_all_batches():
    figures = Figures(lowest=["accuracy"], highest=["score"])
    for batch in BATCHES:
        figures.update(batch)
    found = {name: value.item() for name, value in figures.compute().items()}
    assert found == pytest.approx({"hit": 3 / 5, "score": 7.5, "accuracy": 0.0})


def test_what_does_not_count_has_its_names_and_no_items():
    figures = Figures(highest=["score"])
    figures.update(BATCHES[0], counted=False)
    found = figures.compute()
    assert found.keys() == BATCHES[0].keys()
    assert found["accuracy"].isnan() and found["score"] == -math.inf
    figures.update(BATCHES[1])
    assert figures.compute()["accuracy"] == 1.0


def test_processes_are_added_up():
    # Three items here and one there: 3/4, where the mean of the means would be 5/6.
    here, there = Figures(highest=["score"]), Figures(highest=["score"])
    here.update(BATCHES[0])
    there.update(BATCHES[1])
    here.totals = here._reductions["totals"](torch.stack([here.totals, there.totals]))
    here.extremes = here._reductions["extremes"](torch.stack([here.extremes, there.extremes]))
    assert here.compute()["accuracy"] == 0.75 and here.compute()["score"] == 7.5


def test_it_can_begin_anew():
    figures = Figures()
    figures.update(BATCHES[0])
    figures.reset()
    figures.update({"loss": torch.tensor([2.0])})
    assert figures.compute() == {"loss": 2.0}
