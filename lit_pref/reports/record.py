"""What every record and every table of counts and figures has in common, whichever command writes it."""

from collections.abc import Iterable, Mapping

import torch
from rich import box
from rich.table import Table

from lit_pref.machine.provenance import GitState, git_state, json_number, versions
from lit_pref.metrics.intervals import Interval
from lit_pref.sandbox import level_in_force
from lit_pref.storage.files import JsonValue


def circumstances(git: GitState | None = None) -> dict[str, JsonValue]:
    """Where, with which code and in which sandbox a result was made. git: the code's state at an earlier time."""
    git = git or git_state()
    return {
        "sandbox": level_in_force(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "git_commit": git.commit,
        "git_dirty": git.dirty,
        "versions": versions(),
    }


def interval_json(interval: Interval) -> dict[str, JsonValue]:
    """JSON knows no infinity, which the bounds of a single item's interval are: null."""
    return {name: json_number(value) for name, value in interval._asdict().items()}


def counted(counts: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    return ((name, f"{count:,}") for name, count in counts.items())


def table(title: str, *parts: Iterable[tuple[str, ...]]) -> Table:
    """Rows of a name and its figures, a space between the parts; print it with rich."""
    made = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", show_header=False, show_edge=False, pad_edge=False
    )
    for part in parts:
        for name, *figures in part:
            made.add_row(name, *figures)
        made.add_section()
    for column in made.columns[1:]:
        column.justify, column.no_wrap = "right", True
    return made
