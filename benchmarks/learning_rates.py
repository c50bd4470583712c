"""What each method makes of the same samples, over learning rates and seeds: the README's table and plot.

    python -m benchmarks.learning_rates --output benchmarks/results

Every cell is one `lit-pref fit` as a user would run it; a seed redraws problems, samples, pairs and order. Held-out
problems are the same for all. Finished cells are kept, so that an interrupted run goes on. With `--split validation`
the same is measured on unseen problems of training compositions: that is what settings were chosen on.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.cells import figures, run_all

METHODS = {
    "SFT on passing samples": ("sft_passing", ()),
    "DPO": ("dpo", ()),
    "DPO + ChosenNLL": ("dpo", ("--model.regularizer", "ChosenNLL")),
    "DPO + budget": ("dpo_budget", ()),
}
RATES = (3e-5, 6e-5, 1e-4, 2e-4, 5e-4)


class Cell(NamedTuple):
    method: str
    rate: float
    seed: int
    split: str

    @property
    def name(self) -> str:
        return f"{self.method.replace(' ', '_')}-{self.rate:g}-{self.seed}-{self.split}"


def arguments_of(cell: Cell) -> list[str]:
    config, extra = METHODS[cell.method]
    return [
        *("--config", f"configs/{config}.yaml", *extra),
        *("--model.optimizer.lr", str(cell.rate), "--seed_everything", str(cell.seed)),
        *("--config", f"benchmarks/evaluate_{cell.split}.yaml"),
    ]


def cells(seeds: int, split: str) -> Iterator[Cell]:
    for seed in range(seeds):
        for rate in RATES:
            for method in METHODS:
                yield Cell(method, rate, seed, split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each")
    arguments = parser.parse_args()
    folder = arguments.output / "cells"
    todo = list(cells(arguments.seeds, arguments.split))
    # A seed's first cell makes the samples that its others find, so it goes ahead of them.
    first = [cell for cell in todo if cell.rate == RATES[0] and cell.method == "DPO"]
    for several in (first, todo):
        run_all({cell.name: arguments_of(cell) for cell in several}, folder, arguments.processes)
    table = [{**cell._asdict(), **figures(cell.name, folder)} for cell in todo]
    target = arguments.output / f"learning_rates_{arguments.split}.csv"
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    print(f"wrote {target}; now: python -m benchmarks.learning_rates_figures {target}")


if __name__ == "__main__":
    main()
