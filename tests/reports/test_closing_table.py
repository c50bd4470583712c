"""Rows are derived by hand from a few items; the rendered text is read as a user would."""

import io

import pytest
import torch
from rich.console import Console
from torch import Tensor

from lit_pref.reports.closing_table import changes, closing_table, falls


def rendered(before: dict[str, Tensor], after: dict[str, Tensor], width: int) -> list[str]:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(closing_table(before, after, width))
    return console.export_text().splitlines()


def row(lines: list[str], name: str) -> str:
    found = [line for line in lines if line.startswith(name)]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def solved(count: int, of: int) -> Tensor:
    return (torch.arange(of) < count).float()


def test_difference_is_after_minus_before_over_the_same_items():
    # Items go 0,0,1,1 → 1,1,1,0: one lost, two won; (3 − 2) / 4 = 1/4.
    before, after = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    (change,) = changes({"pass@1": before}, {"pass@1": after})
    assert change.before is not None and change.after is not None and change.difference is not None
    assert change.before.mean == pytest.approx(0.5)
    assert change.after.mean == pytest.approx(0.75)
    assert change.difference.mean == pytest.approx(0.25)
    assert change.difference.n == 4
    assert change.share


def test_pairing_shows_what_two_separate_intervals_would_hide():
    # Every item loses about 1 nat while items differ by tens of nats: the difference is −1 with hardly any spread.
    before = torch.linspace(-60, -10, 50)
    (change,) = changes({"logps/chosen": before}, {"logps/chosen": before - torch.linspace(0.999, 1.001, 50)})
    assert change.difference is not None and change.before is not None
    assert change.difference.high - change.difference.low < 1e-3 < change.before.high - change.before.low
    assert not change.share


@pytest.mark.parametrize(
    ("name", "values", "share"),
    [
        ("pair_accuracy", [0.0, 1.0], True),
        ("best_of_n/4", [0.25, 0.5], True),
        ("margin", [0.5, 1.5], False),
        ("reasoning/nll", [0.6, 0.7], False),  # nats, though all are below 1
        ("brier", [0.1, 0.3], False),
        ("reasoning/score_chosen", [0.1, 0.3], False),
        ("margin", [0.1, 0.3], False),
    ],
)
def test_shares_lie_between_0_and_1_and_are_no_nats(name: str, values: list[float], share: bool):
    (change,) = changes({name: torch.tensor(values)}, {})
    assert change.share is share


def test_falls_are_before_minus_after():
    before = {"logps/chosen": torch.tensor([-10.0, -12.0]), "logps/rejected": torch.tensor([-11.0, -13.0])}
    after = {"logps/chosen": torch.tensor([-11.0, -14.0]), "logps/rejected": torch.tensor([-31.0, -33.0])}
    chosen, rejected = falls(before, after)
    assert (chosen.name, rejected.name) == ("chosen fall", "rejected fall")
    assert chosen.difference is not None and rejected.difference is not None
    assert chosen.difference.mean == pytest.approx((1 + 2) / 2)
    assert rejected.difference.mean == pytest.approx(20)


def test_without_log_probs_there_are_no_falls():
    assert falls({"pass@1": solved(1, 2)}, {"pass@1": solved(2, 2)}) == []


def test_a_figure_taken_only_afterwards_has_no_difference():
    (change,) = changes({}, {"budget/over": solved(1, 8)})
    assert change.before is None and change.difference is None and change.after is not None


def test_other_items_than_before_are_not_paired():
    (change,) = changes({"pass@1": solved(1, 4)}, {"pass@1": solved(2, 5)})
    assert change.difference is None and change.before is not None and change.after is not None


def test_a_single_item_has_no_interval():
    lines = rendered({"pass@1": solved(0, 1), "margin": torch.tensor([2.0])}, {"pass@1": solved(1, 1)}, width=80)
    assert row(lines, "1 item").split() == ["1", "item"]
    assert row(lines, "pass@1").split() == ["pass@1", "0.0%", "100.0%", "+100.0%"]
    assert row(lines, "margin").split() == ["margin", "2.0", "–", "–"]


def test_over_how_many_items_each_figure_is_stands_above_it():
    before = {"pass@1": solved(1, 1000), "a": solved(1, 8), "b": solved(2, 8), "c": solved(1, 4)}
    after = {"pass@1": solved(3, 1000), "a": solved(1, 8), "b": solved(2, 8), "c": solved(2, 5)}
    lines = [line.strip() for line in rendered(before, after, width=80)]
    counts = {"1,000 items", "8 items", "4 items before, 5 after"}
    order = [line.split("  ")[0] for line in lines if line in counts or line.split("  ")[0] in before]
    assert order == ["1,000 items", "pass@1", "8 items", "a", "b", "4 items before, 5 after", "c"]


def test_shares_of_samples_that_did_not_change_are_not_surely_equal():
    quarters = torch.tensor([0.25, 0.5] * 10)
    (change,) = changes({"best_of_n/4": quarters}, {"best_of_n/4": quarters})
    assert change.difference is not None and change.difference.is_known
    assert change.difference.low < -0.1 and change.difference.high > 0.1


def test_items_that_could_not_be_measured_are_left_out():
    nan = float("nan")
    before, after = torch.tensor([0.0, 1.0, nan, 0.0]), torch.tensor([1.0, 1.0, 1.0, nan])
    (change,) = changes({"pass@1": before}, {"pass@1": after})
    assert change.before is not None and change.after is not None and change.difference is not None
    assert (change.before.mean, change.before.n) == (pytest.approx(1 / 3), 3)
    assert (change.after.mean, change.after.n) == (1.0, 3)
    assert (change.difference.mean, change.difference.n) == (0.5, 2)  # of the two that are in both
    (none,) = changes({"pass@1": torch.tensor([nan])}, {"pass@1": torch.tensor([1.0])})
    assert none.before is None and none.difference is None


@pytest.mark.parametrize("width", [80, 100])
def test_a_usual_run_takes_one_line_a_figure(width: int):
    noise = torch.linspace(-5, 5, 500)
    before = {"pass@1": solved(634, 1000), "pair_accuracy": solved(275, 500), "logps/chosen": -20 + noise}
    before |= {"logps/rejected": -22 + noise}
    after = {"pass@1": solved(700, 1000), "pair_accuracy": solved(450, 500), "logps/chosen": -22 + 1.5 * noise}
    after |= {"logps/rejected": -40 + 2 * noise, "budget/over": solved(65, 500)}
    lines = rendered(before, after, width)
    assert all(len(line.rstrip()) <= width for line in lines)
    assert row(lines, "pass@1").split()[1] == "63.4%"
    assert "+6.6% [" in row(lines, "pass@1")  # 700 − 634 of 1,000
    assert "+35.0% [" in row(lines, "pair_accuracy")  # 450 − 275 of 500
    assert "-2.0 [" in row(lines, "logps/chosen")
    assert "+18.0 [" in row(lines, "rejected fall")
    assert "13.0% [" in row(lines, "budget/over")  # 65 of 500, after only
    assert row(lines, "budget/over").count("–") == 2


def test_a_narrow_console_gets_each_interval_below_its_mean():
    lines = rendered({"pass@1": solved(63, 100)}, {"pass@1": solved(70, 100)}, width=50)
    top = row(lines, "pass@1")
    below = lines[lines.index(top) + 1]
    assert top.split() == ["pass@1", "63.0%", "70.0%", "+7.0%"]
    assert below.count("[") == below.count("]") == 3


def test_names_in_brackets_are_not_read_as_styles():
    assert row(rendered({"pass[hard]": solved(1, 2)}, {}, width=80), "pass[hard]")


def test_headings_say_of_which_split_figures_are():
    figures = {"pass@1": solved(3, 4), "human_eval/pass@1": solved(1, 4), "logps/chosen": torch.arange(4.0)}
    splits = {"pass@1": "validation", "human_eval/pass@1": "test", "logps/chosen": "validation"}
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(closing_table(figures, figures, 100, splits))
    names = [line.split("  ")[0].strip() for line in console.export_text().splitlines()[3:]]
    assert names == [
        "validation, 4 items", "pass@1", "test, 4 items", "human_eval/pass@1", "validation, 4 items", "logps/chosen",
        "chosen fall",
    ]  # fmt: skip


def test_without_figures_from_before_there_is_one_column():
    lines = rendered({}, {"pass@1": solved(3, 4)}, 100)
    assert lines[1].split() == ["measured"] and row(lines, "pass@1").split()[1].startswith("75.0%")
