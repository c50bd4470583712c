"""What an evaluation found, as numbers and as a table: pass@k with 95% intervals over problems, outcomes by kind.

Not covered: intervals over the samples of one problem, which are no independent draws of problems.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from rich.table import Table

from lit_pref.data.reading.sample_files import Samples
from lit_pref.evaluation.grading import counts, ungraded
from lit_pref.evaluation.pass_at_k import figures
from lit_pref.metrics import Interval, mean_interval
from lit_pref.reports.record import counted, interval_json, table
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
            "figures": {name: interval_json(interval) for name, interval in self.figures.items()},
            "problems": self.problems,
            "samples": self.samples,
            "outcomes": outcomes,
            "truncated": self.truncated,
            "left_out": {"failing_references": {**self.failing_references}, "ungraded": {**self.ungraded}},
        }

    def table(self, title: str) -> Table:
        """A row a figure and a kind of outcome that occurred."""
        left_out = {"the reference fails": self.failing_references, "not graded": self.ungraded}
        counts = {
            "problems": self.problems,
            **{f"  left out, {reason}": len(names) for reason, names in left_out.items() if names},
            "samples": self.samples,
            **{f"  {outcome.value}": self.outcomes[outcome] for outcome in Outcome if self.outcomes[outcome]},
            **({} if self.truncated is None else {"truncated": self.truncated}),
        }
        figures = ((name, interval.text(1, percent=True)) for name, interval in self.figures.items())
        return table(title, figures, counted(counts))


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
        {name: mean_interval(each[~each.isnan()], bounded=True) for name, each in values.items()},
        len(verdicts) - len(broken),
        int(totals.sum()),
        Counter(verdict.outcome for several in verdicts for verdict in several),
        int(counted.truncated.sum()) if samples.ends_known else None,
        failing_references,
        {problems[place].id: why for place, why in broken.items()},
    )
