"""What an evaluation found, as numbers and as a table: pass@k with 95% intervals over problems, outcomes by kind.

Not covered: intervals over the samples of one problem, which are no independent draws of problems.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from rich import box
from rich.table import Table

from lit_pref.data.reading.sample_files import Samples
from lit_pref.evaluation.grading import counts, ungraded
from lit_pref.evaluation.pass_at_k import figures
from lit_pref.metrics import Interval, mean_interval
from lit_pref.storage.files import JsonValue
from lit_pref.types import Outcome, Problem, Verdict


class Results(NamedTuple):
    """Figures over problems, and how many samples came to what.

    problems: that the figures are over. outcomes: of all samples, by kind, those without code among them.
    truncated: whose end was not seen; None where that is not known.
    failing_references, ungraded: why problems are left out, by id: their references fail their own tests, or too many
        of their samples could not be graded.
    """

    figures: dict[str, Interval]
    problems: int
    samples: int
    outcomes: Counter[Outcome]
    truncated: int | None
    failing_references: dict[str, str]
    ungraded: dict[str, str]

    def to_json(self) -> dict[str, JsonValue]:
        outcomes = {outcome.value: self.outcomes[outcome] for outcome in Outcome}
        return {
            "figures": {name: _bounds(interval) for name, interval in self.figures.items()},
            "problems": self.problems,
            "samples": self.samples,
            "outcomes": outcomes,
            "truncated": self.truncated,
            "left_out": {"failing_references": {**self.failing_references}, "ungraded": {**self.ungraded}},
        }

    def table(self, title: str) -> Table:
        """A row a figure and a kind of outcome that occurred; print it with rich."""
        table = Table(
            box=box.SIMPLE_HEAD, title=title, title_justify="left", show_header=False, show_edge=False, pad_edge=False
        )
        table.add_column()
        table.add_column(justify="right", no_wrap=True)
        for name, interval in self.figures.items():
            table.add_row(name, interval.text(1, percent=True))
        table.add_section()
        table.add_row("problems", f"{self.problems:,}")
        for reason, names in (("the reference fails", self.failing_references), ("not graded", self.ungraded)):
            if names:
                table.add_row(f"  left out, {reason}", f"{len(names):,}")
        table.add_row("samples", f"{self.samples:,}")
        for outcome in Outcome:
            if self.outcomes[outcome]:
                table.add_row(f"  {outcome.value}", f"{self.outcomes[outcome]:,}")
        if self.truncated is not None:
            table.add_row("truncated", f"{self.truncated:,}")
        return table


def evaluation_results(
    problems: Sequence[Problem],
    samples: Samples,
    verdicts: Sequence[Sequence[Verdict]],
    ks: Sequence[int],
    failing_references: dict[str, str],
) -> Results:
    """The results of samples of each problem and their verdicts.

    Raises ValueError where a k needs more samples, HarnessError where no problem could be graded.
    """
    counted = counts(verdicts, [[each.finished for each in several] for several in samples.completions])
    totals = torch.tensor([len(several) for several in verdicts])
    broken = ungraded(verdicts, max(ks))
    values = figures(counted, totals, ks)
    return Results(
        {name: mean_interval(each[~each.isnan()]) for name, each in values.items()},
        len(verdicts) - len(broken),
        int(totals.sum()),
        Counter(verdict.outcome for several in verdicts for verdict in several),
        int(counted.truncated.sum()) if samples.ends_known else None,
        failing_references,
        {problems[place].id: why for place, why in broken.items()},
    )


def _bounds(interval: Interval) -> dict[str, JsonValue]:
    """JSON knows no infinity, which the bounds of a single problem's interval are."""
    named = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: value if math.isfinite(value) else None for name, value in named.items()}
