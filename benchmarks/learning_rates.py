"""What each method makes of the same samples, over learning rates and seeds: the README's table and plot.

    python -m benchmarks.learning_rates --output benchmarks/results

Every cell is one `lit-pref fit` as a user would run it; a seed redraws problems, samples, pairs and order. Held-out
problems are the same for all. Finished cells are kept, so that an interrupted run goes on. With `--split validation`
the same is measured on unseen problems of training compositions: that is what settings were chosen on.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

METHODS = {
    "SFT on passing samples": ("sft_passing", ()),
    "DPO": ("dpo", ()),
    "DPO + ChosenNLL": ("dpo", ("--model.regularizer", "ChosenNLL")),
    "DPO + budget": ("dpo_budget", ()),
}
RATES = (3e-5, 6e-5, 1e-4, 2e-4, 5e-4)
FIGURES = ("pass@1", "pair_accuracy", "logps/chosen", "logps/rejected")


class Cell(NamedTuple):
    method: str
    rate: float
    seed: int
    split: str

    @property
    def name(self) -> str:
        return f"{self.method.replace(' ', '_')}-{self.rate:g}-{self.seed}-{self.split}"


def command(cell: Cell, runs: Path) -> list[str]:
    config, extra = METHODS[cell.method]
    return [
        *(sys.executable, "-m", "lit_pref.cli", "fit", "--config", f"configs/{config}.yaml", *extra),
        *("--model.optimizer.lr", str(cell.rate), "--seed_everything", str(cell.seed)),
        *("--data.held_out", cell.split, "--config", f"benchmarks/evaluate_{cell.split}.yaml"),
        *("--runs_folder", str(runs), "--run_name", cell.name),
    ]


def measure(cell: Cell, folder: Path) -> None:
    """Run one cell and keep its summary."""
    kept = folder / f"{cell.name}.json"
    if kept.exists():
        return
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    with tempfile.TemporaryDirectory() as runs:
        done = subprocess.run(command(cell, Path(runs)), env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{cell.name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        (summary,) = Path(runs).glob("*/*/summary.json")
        kept.write_text(summary.read_text())
    print(cell.name, json.loads(kept.read_text())["after"]["pass@1"], flush=True)


def cells(seeds: int, split: str) -> Iterator[Cell]:
    for seed in range(seeds):
        for rate in RATES:
            for method in METHODS:
                yield Cell(method, rate, seed, split)


def rows(done: list[Cell], folder: Path) -> Iterator[dict[str, object]]:
    """One row a cell: its settings, and each figure before and after."""
    for cell in done:
        summary = json.loads((folder / f"{cell.name}.json").read_text())
        figures = {f"{when}/{name}": summary[when][name] for when in ("before", "after") for name in FIGURES}
        yield {**cell._asdict(), **figures, "wall_seconds": summary["wall_seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each")
    arguments = parser.parse_args()
    folder = arguments.output / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    todo = list(cells(arguments.seeds, arguments.split))
    # A seed's first cell makes the samples that its others find, so it goes ahead of them.
    first = [cell for cell in todo if cell.rate == RATES[0] and cell.method == "DPO"]
    with ThreadPoolExecutor(arguments.processes) as pool:
        list(pool.map(lambda cell: measure(cell, folder), first))
        list(pool.map(lambda cell: measure(cell, folder), todo))
    table = list(rows(todo, folder))
    target = arguments.output / f"learning_rates_{arguments.split}.csv"
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    print(f"wrote {target}; now: python -m benchmarks.learning_rates_figures {target}")


if __name__ == "__main__":
    main()
