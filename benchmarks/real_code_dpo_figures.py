"""The table of `benchmarks.real_code_dpo`, from its CSV: python -m benchmarks.real_code_dpo_figures [CSV]

Writes `<name>.md` beside it. A difference is of an arm's mean over seeds and the start, paired by problem, with the 95%
interval over problems.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cells import rows
from benchmarks.real_code_dpo import ARMS, BENCHMARKS
from lit_pref.metrics import Interval, mean_interval, paired_difference_interval

NAMES = {"start": "start", "rft": "RFT", "dpo": "DPO", "dpo_budget": "DPO + budget"}
TITLES = {"mbpp": "MBPP test", "human_eval": "HumanEval"}
Row = dict[str, str]


def passed(several: Sequence[Row], benchmark: str) -> Tensor:
    """How many of the seeds pass each problem, as a share, [problems]."""
    marks = [[float(mark) for mark in row[f"{benchmark}/passed"].removeprefix("p")] for row in several]
    return torch.tensor(marks, dtype=torch.float64).mean(0)


def against(several: Sequence[Row], start: Sequence[Row], benchmarks: Sequence[str]) -> Interval:
    """The difference to the start over the problems of all the benchmarks, in points."""
    after, before = (torch.cat([passed(each, name) for name in benchmarks]) for each in (several, start))
    found = paired_difference_interval(before, after, bounded=True)
    return Interval(100 * found.mean, 100 * found.low, 100 * found.high, found.n)


def table(every: Sequence[Row]) -> str:
    models = list(dict.fromkeys(row["model"] for row in every))
    return "\n".join(line for model in models for line in _of_model([row for row in every if row["model"] == model]))


def _of_model(every: Sequence[Row]) -> list[str]:
    arms = {arm: [row for row in every if row["arm"] == arm] for arm in ARMS}
    start = arms["start"]
    lines = [f"## {every[0]['model']}", "", _sampled(arms), ""]
    heads = ["", "seeds", *(TITLES[name] for name in BENCHMARKS), *(f"{TITLES[name]}, gain" for name in BENCHMARKS)]
    heads += ["both, gain", "cut off", "validation", "chosen fell", "rejected fell", "trained on", "minutes"]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for arm, several in arms.items():
        if several:
            lines.append(_line([NAMES[arm], str(len(several)), *_measured(arm, several, start), *_trained(several)]))
    return [*lines, ""]


def _measured(arm: str, several: Sequence[Row], start: Sequence[Row]) -> list[str]:
    shares = [mean_interval(passed(several, name), bounded=True).text(1, percent=True) for name in BENCHMARKS]
    if arm == "start" or not start:
        return [*shares, *[""] * (len(BENCHMARKS) + 1), _cut(several)]
    each = [against(several, start, [name]).text(1, sign="+") for name in BENCHMARKS]
    return [*shares, *each, against(several, start, list(BENCHMARKS)).text(1, sign="+"), _cut(several)]


def _cut(several: Sequence[Row]) -> str:
    return " / ".join(f"{100 * _mean(several, f'{name}/truncated'):.1f}%" for name in BENCHMARKS)


def _trained(several: Sequence[Row]) -> list[str]:
    """Validation pass@1, nats that chosen and rejected lost, training rows, minutes of a cell."""
    seconds = ["fit_seconds", *(f"{name}/seconds" for name in BENCHMARKS)]
    minutes = sum(_mean(several, name) for name in seconds) / 60
    counts = json.loads(several[0]["train"])
    trained = "" if several[0]["arm"] == "start" else f"{counts.get('pairs', counts.get('passing samples')):,}"
    return [
        f"{100 * _mean(several, 'validation/pass@1'):.1f}%",
        f"{_mean(several, 'validation/chosen_fall'):.2f}",
        f"{_mean(several, 'validation/rejected_fall'):.2f}",
        trained,
        f"{minutes:.0f}",
    ]


def _sampled(arms: dict[str, list[Row]]) -> str:
    """What the samples of training problems gave."""
    of_pairs = [row for arm in ("start", "dpo", "dpo_budget") for row in arms[arm]]
    if not of_pairs:
        return "No samples yet."
    counts = json.loads(of_pairs[0]["train"])
    machine = of_pairs[0]["machine"]
    return (
        "Training problems and their samples: "
        + ", ".join(f"{n:,} {what}" for what, n in counts.items())
        + f". {machine}."
    )


def _mean(several: Sequence[Row], name: str) -> float:
    return sum(float(row[name]) for row in several) / len(several)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?", default=Path("benchmarks/results/real_code_dpo.csv"))
    path = parser.parse_args().csv
    text = table(rows(path))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
