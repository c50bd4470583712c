"""The table and the plot of `benchmarks.code_dpo`, from its CSV.

    python -m benchmarks.code_dpo_figures benchmarks/results/code_dpo.csv

Writes `<name>.md` and `<name>.png` beside the CSV. Differences are paired over seeds, with 95% t-intervals.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from benchmarks.code_dpo import ARMS, FACTORS
from lit_pref.metrics import Interval, across_seeds_interval

COLOURS = {
    "RFT": "#7a7a7a",
    "DPO": "#d1495b",
    "DPO, weak model's pairs": "#edae49",
    "DPO, best against worst": "#00798c",
}
Passed = dict[tuple[str, str, str], dict[int, float]]
"""(arm, factor, value) -> seed -> pass@1 in %; the arm "start" before training."""


def read(path: Path) -> Passed:
    passed: Passed = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            seed, of = int(row["seed"]), (row["factor"], row["value"])
            passed.setdefault((row["arm"], *of), {})[seed] = 100 * float(row["after/pass@1"])
            passed.setdefault(("start", *of), {})[seed] = 100 * float(row["before/pass@1"])
    for name, factor in FACTORS.items():  # what was not run again: the arms as they are
        if factor.default:
            passed |= {(arm, name, factor.default): passed[arm, "", ""] for arm in ("start", "RFT", "DPO")}
        if "RFT" not in factor.arms:
            passed |= {("RFT", name, value): passed["RFT", "", ""] for value in factor.others}
    return passed


def difference(one: dict[int, float], other: dict[int, float]) -> Interval:
    seeds = sorted(one.keys() & other.keys())
    return across_seeds_interval(torch.tensor([one[seed] - other[seed] for seed in seeds], dtype=torch.float64))


def mean(values: dict[int, float]) -> Interval:
    return across_seeds_interval(torch.tensor(list(values.values()), dtype=torch.float64))


def shown(interval: Interval, sign: str = "+") -> str:
    return f"{interval.mean:{sign}.1f} ({interval.low:{sign}.1f} to {interval.high:{sign}.1f})"


def values_of(name: str) -> list[str]:
    factor = FACTORS[name]
    values = [*factor.others, *([factor.default] if factor.default else [])]
    order = ["embedded:coder-weak", "embedded:coder", "embedded:coder-strong"]
    return sorted(values, key=lambda value: order.index(value) if value in order else float(value))


def table(passed: Passed) -> str:
    start, dpo = passed["start", "", ""], passed["DPO", "", ""]
    lines = [
        f"Held-out pass@1 in %, greedy, 1,000 problems; means and paired differences over {len(dpo)} seeds with 95%",
        "t-intervals.",
        "",
        "| | pass@1 | against start | DPO on-policy against it |",
        "|---|---|---|---|",
        f"| start | {shown(mean(start), '')} | | {shown(difference(dpo, start))} |",
    ]
    for arm in ARMS:
        own = passed[arm, "", ""]
        against = "" if arm == "DPO" else shown(difference(dpo, own))
        lines.append(f"| {arm} | {shown(mean(own), '')} | {shown(difference(own, start))} | {against} |")
    lines += [
        "",
        "DPO against RFT, one setting changed for both at a time:",
        "",
        "| | | start | RFT | DPO | DPO - RFT |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name in FACTORS:
        for value in values_of(name):
            if ("DPO", name, value) not in passed or ("RFT", name, value) not in passed:
                continue  # not run
            arms = [passed[arm, name, value] for arm in ("start", "RFT", "DPO")]
            means = " | ".join(f"{mean(each).mean:.1f}" for each in arms)
            lines.append(f"| {name} | {value} | {means} | {shown(difference(arms[2], arms[1]))} |")
    return "\n".join(lines) + "\n"


def plot(passed: Passed, path: Path) -> None:
    figure, panels = plt.subplots(1, 1 + len(FACTORS), figsize=(16, 3.8), constrained_layout=True)
    _arms(panels[0], passed)
    for axes, name in zip(panels[1:], FACTORS, strict=True):
        values = [x for x in values_of(name) if {("RFT", name, x), ("DPO", name, x)} <= passed.keys()]
        gaps = [difference(passed["DPO", name, value], passed["RFT", name, value]) for value in values]
        axes.axhline(0, color="black", linewidth=1, linestyle=":")
        middle = [gap.mean for gap in gaps]
        spread = [[m - gap.low for m, gap in zip(middle, gaps, strict=True)]]
        spread.append([gap.high - m for m, gap in zip(middle, gaps, strict=True)])
        axes.errorbar(range(len(values)), middle, spread, color=COLOURS["DPO"], marker="o", capsize=3)
        labels = [value.removeprefix("embedded:") for value in values]
        if name == "start policy":
            labels = [f"{x}\n{mean(passed['start', name, v]).mean:.0f}%" for x, v in zip(labels, values, strict=True)]
        axes.set_xticks(range(len(values)), labels)
        axes.set(title=name, ylabel="DPO - RFT, points of pass@1" if axes is panels[1] else "")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _arms(axes: Axes, passed: Passed) -> None:
    start = mean(passed["start", "", ""]).mean
    axes.axvline(start, color="black", linewidth=1, linestyle=":")
    axes.annotate(f"start {start:.1f}", (start, 0.5), xytext=(4, 0), textcoords="offset points", fontsize=9)
    for place, (arm, colour) in enumerate(COLOURS.items()):
        own = mean(passed[arm, "", ""])
        axes.errorbar(
            own.mean, place, xerr=[[own.mean - own.low], [own.high - own.mean]], color=colour, marker="o", capsize=3
        )
        axes.plot(list(passed[arm, "", ""].values()), [place] * own.n, ".", color=colour, alpha=0.4)
    axes.set_yticks(range(len(COLOURS)), [arm.replace(", ", ",\n") for arm in COLOURS])
    axes.invert_yaxis()
    axes.set(xlabel="held-out pass@1 (%)", title="the same problems, other pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    path = parser.parse_args().csv
    passed = read(path)
    text = table(passed)
    path.with_suffix(".md").write_text(text)
    plot(passed, path.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
