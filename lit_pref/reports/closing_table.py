"""What training changed, figure by figure, with 95% intervals: as numbers, and as the table that ends a run.

A figure is one value an item on fixed held-out items, so that before and after are paired. Not covered: correction for
looking at several figures at once; variation over seeds.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lit_pref.metrics.intervals import Interval, mean_interval, paired_difference_interval

_TITLE = "held out, with 95% intervals"
_GAP = 2  # blanks between columns
_NO_SHARES = ("nll", "brier", "margin", "score_chosen", "score_rejected")  # whatever their values
_SIDES = {"chosen fall": "logps/chosen", "rejected fall": "logps/rejected"}

Figures = Mapping[str, Tensor]
"""Per-item values by name, [items] each; NaN for an item that could not be measured, which is left out."""


class Change(NamedTuple):
    """One figure before and after training, and after minus before over the same items; None where it was not taken.

    share: all values lie in [0, 1], so that they read as percentages.
    """

    name: str
    before: Interval | None
    after: Interval | None
    difference: Interval | None
    share: bool


def changes(before: Figures, after: Figures) -> list[Change]:
    """One entry a figure, in the order in which the evaluations gave them."""
    return [_change(name, before.get(name), after.get(name)) for name in {**before, **after}]


def falls(before: Figures, after: Figures) -> list[Change]:
    """`chosen fall` and `rejected fall`: nats of log-prob that each side lost, before minus after."""
    both = before.keys() & after.keys()
    lost = {fall: _difference(after[name], before[name]) for fall, name in _SIDES.items() if name in both}
    return [Change(fall, None, None, nats, share=False) for fall, nats in lost.items()]


def closing_table(
    before: Figures, after: Figures, width: int = 100, splits: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """A row a figure and a fall: before, after, and the paired difference, each as `mean [95% interval]`.

    Above figures stands of which split they are and over how many items; where an interval is not known, there is only
    the mean. Without figures from before there is one column.

    width: columns of text; where the rows do not fit, each interval stands below its mean.
    splits: by name of figure.
    """
    rows: list[tuple[str, ...]] = [("", "before", "after", "difference")]
    heading = ""
    for change in [*changes(before, after), *falls(before, after)]:
        split = splits.get(_SIDES.get(change.name, change.name))
        if heading != (heading := ", ".join(filter(None, (split, _items(change))))):
            rows.append((heading, "", "", ""))
        levels = [_text(interval, change.share, sign="") for interval in (change.before, change.after)]
        rows.append((change.name, *levels, _text(change.difference, change.share, sign="+")))
    if not before:
        rows = [("", "measured"), *((name, after) for name, _, after, _ in rows[1:])]
    widest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fits = sum(widest) + _GAP * (len(widest) - 1) <= width
    table = Table(
        box=box.SIMPLE_HEAD,
        title=_TITLE,
        min_width=len(_TITLE),
        title_justify="left",
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),  # the box puts one blank between columns
    )
    for position, header in enumerate(rows[0]):
        table.add_column(header, justify="right" if position else "left", no_wrap=fits)
    for row in rows[1:]:
        style = "dim" if not any(row[1:]) else ""
        table.add_row(*(Text(cell if fits else cell.replace(" [", "\n[")) for cell in row), style=style)
    return table


def _items(change: Change) -> str:
    """Over how many items a figure is."""
    taken = [interval.n for interval in (change.before, change.after, change.difference) if interval is not None]
    if len(set(taken)) > 1 and change.before is not None and change.after is not None:
        return f"{change.before.n:,} items before, {change.after.n:,} after"
    return f"{min(taken, default=0):,} item" + "s" * (min(taken, default=0) != 1)


def _change(name: str, before: Tensor | None, after: Tensor | None) -> Change:
    taken = [values for values in (before, after) if values is not None]
    share = all(is_share(name, values) for values in taken)
    difference = None if before is None or after is None else _difference(before, after, share)
    return Change(name, _level(before, share), _level(after, share), difference, share)


def _level(values: Tensor | None, share: bool) -> Interval | None:
    measured = None if values is None else values[~values.isnan()]
    return None if measured is None or not len(measured) else mean_interval(measured, bounded=share)


def is_share(name: str, values: Tensor) -> bool:
    """Whether a figure reads as a percentage: all values lie in [0, 1], and they are no scores, nats or squares."""
    return not name.endswith(_NO_SHARES) and bool((((values >= 0) & (values <= 1)) | values.isnan()).all())


def _difference(before: Tensor, after: Tensor, share: bool = False) -> Interval | None:
    """After minus before; None where a resumed run evaluated another number of items, which cannot be paired."""
    if before.shape != after.shape:
        return None
    measured = ~(before.isnan() | after.isnan())
    return paired_difference_interval(before[measured], after[measured], bounded=share) if measured.any() else None


def _text(interval: Interval | None, share: bool, sign: str) -> str:
    if interval is None:
        return "–"
    digits = 1 if share else _digits((interval.high - interval.low) / 2)
    return interval.text(digits, share, sign)


def _digits(half_width: float) -> int:
    """Decimals that show the first figure of an interval's half-width, from 1 to 3."""
    if not math.isfinite(half_width) or half_width <= 0:
        return 1
    return min(max(-math.floor(math.log10(half_width)), 1), 3)
