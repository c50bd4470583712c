import io
import math

from rich.console import Console

from lit_pref.machine.provenance import GitState
from lit_pref.metrics import Interval
from lit_pref.reports.record import circumstances, counted, interval_json, table


def test_a_record_names_code_and_machine_in_one_way():
    found = circumstances(GitState("abc", True))
    assert (found["git_commit"], found["git_dirty"]) == ("abc", True)
    assert found.keys() == {"sandbox", "device", "git_commit", "git_dirty", "versions"}


def test_an_infinite_bound_is_null():
    assert interval_json(Interval(0.5, -math.inf, math.inf, 1)) == {"mean": 0.5, "low": None, "high": None, "n": 1}


def test_a_table_holds_all_parts_with_figures_to_the_right():
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(table("counts", counted({"pairs": 1234, "problems": 5}), [("ece", "0.125", "9 items")]))
    lines = [line.rstrip() for line in console.export_text().splitlines() if line.strip(" ─")]
    assert [line.split() for line in lines] == [
        ["counts"], ["pairs", "1,234"], ["problems", "5"], ["ece", "0.125", "9", "items"]
    ]  # fmt: skip
    assert lines[1].index("4") == lines[2].index("5") == lines[3].rindex("5")
