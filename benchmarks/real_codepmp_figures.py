"""The table of `benchmarks.real_codepmp`, from its CSV: python -m benchmarks.real_codepmp_figures [CSV]

Writes `<name>.md` beside it. Figures are means over seeds; differences are of these means, paired by question, with the
95% interval over questions.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cells import rows
from lit_pref.metrics import Interval, mean_interval, paired_difference_interval

NAMES = {"no_pmp": "without", "pmp": "with PMP"}
Row = dict[str, str]


def ranked(several: Sequence[Row]) -> Tensor:
    """The share of each question's pairs that is ranked rightly, mean over seeds, [questions with both kinds]."""
    shares = []
    for row in several:
        digits = [int(digit) for digit in row["ranked"].removeprefix("p")]
        shares.append([right / of for right, of in zip(digits[::2], digits[1::2], strict=True)])
    return torch.tensor(shares, dtype=torch.float64).mean(0)


def best(several: Sequence[Row]) -> Tensor:
    """Whether the best-scored solution of each question is right, mean over seeds, [questions]."""
    marks = [[float(mark) for mark in row["best"].removeprefix("p")] for row in several]
    return torch.tensor(marks, dtype=torch.float64).mean(0)


def table(every: Sequence[Row]) -> str:
    first = every[0]
    lines = [
        f"Held-out GSM8K questions: {len(ranked(every[:1]))} with right and wrong solutions of "
        f"{len(best(every[:1]))}. Of four solutions right: {_percent(first['mean'])} on average, "
        f"{_percent(first['majority'])} by majority vote, {_percent(first['oracle'])} at most.",
        "",
        "| questions finetuned on | PMP | seeds | pair accuracy | gain | best of 4 | gain | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in sorted({int(row["size"]) for row in every}):
        arms = {arm: [r for r in every if r["arm"] == arm and int(r["size"]) == size] for arm in NAMES}
        for arm, several in arms.items():
            if several:
                control = None if arm == "no_pmp" or not arms["no_pmp"] else arms["no_pmp"]
                lines.append(_line(size, NAMES[arm], several, control))
    pretraining = [row for row in every if row.get("pretraining/pairs")]
    if pretraining:
        row = pretraining[0]
        lines += [
            "",
            f"Pretraining, once: {int(row['pretraining/pairs']):,} code pairs, of those held out "
            f"{_percent(row['pretraining/validation_accuracy'])} ranked rightly at its end, "
            f"{float(row['pretraining/seconds']) / 60:.0f} minutes.",
        ]
    return "\n".join(lines) + "\n"


def _line(size: int, arm: str, several: Sequence[Row], control: Sequence[Row] | None) -> str:
    cells = [f"{size:,}", arm, str(len(several))]
    for values in (ranked, best):
        cells.append(mean_interval(values(several), bounded=True).text(1, percent=True))
        cells.append("" if control is None else _points(values(control), values(several)))
    seconds = sum(float(row["train_seconds"]) + float(row["score_seconds"]) for row in several) / len(several)
    return f"| {' | '.join([*cells, f'{seconds / 60:.1f}'])} |"


def _points(before: Tensor, after: Tensor) -> str:
    found = paired_difference_interval(before, after, bounded=True)
    return Interval(100 * found.mean, 100 * found.low, 100 * found.high, found.n).text(1, sign="+")


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?", default=Path("benchmarks/results/real_codepmp.csv"))
    path = parser.parse_args().csv
    text = table(rows(path))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
