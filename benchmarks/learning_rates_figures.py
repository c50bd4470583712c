"""The table and the plot of `benchmarks.learning_rates`, from its CSV.

python -m benchmarks.learning_rates_figures benchmarks/results/learning_rates_test.csv

Writes `<name>.md` and `<name>.png` beside the CSV. Cells are means over seeds with 95% t-intervals over seeds.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from lit_pref.metrics import Interval, across_seeds_interval

Cells = dict[tuple[str, float], list[dict[str, str]]]
COLOURS = {
    "SFT on passing samples": "#7a7a7a",
    "DPO": "#d1495b",
    "DPO + ChosenNLL": "#edae49",
    "DPO + budget": "#00798c",
}


def read(path: Path) -> Cells:
    cells: Cells = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            cells[row["method"], float(row["rate"])].append(row)
    return cells


def over_seeds(rows: list[dict[str, str]], figure: str) -> Interval:
    return across_seeds_interval(torch.tensor([float(row[figure]) for row in rows], dtype=torch.float64))


def fall(rows: list[dict[str, str]]) -> Interval:
    """Nats that the chosen responses of held-out pairs lost."""
    lost = [float(row["before/logps/chosen"]) - float(row["after/logps/chosen"]) for row in rows]
    return across_seeds_interval(torch.tensor(lost, dtype=torch.float64))


def table(cells: Cells) -> str:
    methods = list(dict.fromkeys(method for method, _ in cells))
    rates = sorted({rate for _, rate in cells})
    starts = [float(row["before/pass@1"]) for rows in cells.values() for row in rows]
    seeds = len(next(iter(cells.values())))
    lines = [
        f"Held-out pass@1 in %, greedy, 1,000 problems, mean of {seeds} seeds ± half of the 95% t-interval over seeds;",
        f"in brackets the fall of the chosen log-prob on held-out pairs, in nats. Start: {100 * min(starts):.1f}.",
        "",
        "| learning rate | " + " | ".join(f"{rate:.0e}".replace("e-0", "e-") for rate in rates) + " |",
        "|---|" + "---|" * len(rates),
    ]
    for method in methods:
        row = []
        for rate in rates:
            passed, lost = over_seeds(cells[method, rate], "after/pass@1"), fall(cells[method, rate])
            half = (passed.high - passed.low) / 2
            row.append(f"{100 * passed.mean:.1f} ± {100 * half:.1f} ({lost.mean:+.2f})")
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def plot(cells: Cells, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    start = [float(row["before/pass@1"]) for rows in cells.values() for row in rows]
    left.axhline(100 * sum(start) / len(start), color="black", linewidth=1, linestyle=":")
    left.annotate("start", (3e-5, 100 * sum(start) / len(start) + 1), fontsize=9)
    for method, colour in COLOURS.items():
        rates = sorted(rate for name, rate in cells if name == method)
        means = [100 * over_seeds(cells[method, rate], "after/pass@1").mean for rate in rates]
        left.plot(rates, means, color=colour, label=method, marker="o", markersize=4)
        right.plot(rates, [fall(cells[method, rate]).mean for rate in rates], color=colour, marker="o", markersize=4)
        for rate in rates:
            for row in cells[method, rate]:
                left.plot(rate, 100 * float(row["after/pass@1"]), ".", color=colour, alpha=0.4, markersize=5)
    right.axhline(0, color="black", linewidth=1, linestyle=":")
    right.set_yscale("symlog", linthresh=1)
    right.set_yticks([-1, 0, 1, 10], ["-1", "0", "1", "10"])
    left.set(xscale="log", xlabel="learning rate", ylabel="held-out pass@1 (%)", title="What the policy can do")
    right.set(xscale="log", xlabel="learning rate", title="What chosen responses lost")
    right.set_ylabel("fall of log p(chosen), nats a response")
    left.legend(frameon=False, fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks(rates, [f"{rate:.0e}".replace("e-0", "e-") for rate in rates])
        axes.minorticks_off()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    path = parser.parse_args().csv
    cells = read(path)
    text = table(cells)
    path.with_suffix(".md").write_text(text)
    plot(cells, path.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
