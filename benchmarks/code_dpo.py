"""DPO for code models on execution-labelled pairs (after arXiv 2410.18585) and its baselines, on the embedded world.

    python -m benchmarks.code_dpo --output benchmarks/results

Start, SFT on passing samples (RFT), DPO on-policy, DPO on the weak model's pairs, DPO on best against worst: paired
over seeds, each of which redraws problems, samples, pairs and order. Then what decides between DPO and RFT, one factor
at a time: the share of wrong samples (by start policy), pairs a problem, learning rate, sampling temperature. A cell is
one `lit-pref fit` as a user would run it, settings as in `configs/`; finished cells are kept, so that an interrupted
run goes on. All are W&B runs of one group, offline unless WANDB_MODE says otherwise; they lie in `--runs_folder`.
"""

import argparse
import csv
import os
from pathlib import Path
from typing import NamedTuple

from benchmarks.cells import figures, run_all

ARMS = {
    "RFT": ("--config", "configs/sft_passing.yaml"),
    "DPO": ("--config", "configs/dpo.yaml"),
    "DPO, weak model's pairs": ("--config", "configs/dpo.yaml", "--data.samples.sampled_policy", "embedded:coder-weak"),
    "DPO, best against worst": ("--config", "configs/dpo.yaml", "--data.strategy", "best_vs_worst"),
}


class Factor(NamedTuple):
    """An option, what it is set to beside what the arms have, and the arms that it changes."""

    option: str
    default: str
    others: tuple[str, ...]
    arms: tuple[str, ...] = ("RFT", "DPO")


FACTORS = {
    "start policy": Factor("--model.policy", "embedded:coder", ("embedded:coder-weak", "embedded:coder-strong")),
    "pairs a problem": Factor("--data.pairs_per_problem", "1", ("2", "4"), ("DPO",)),
    "learning rate": Factor("--model.optimizer.lr", "", ("1.5e-5", "3e-5", "6e-5", "1e-4", "2e-4")),
    "temperature": Factor("--data.samples.sampling.temperature", "1.0", ("0.6", "1.4")),
}


class Cell(NamedTuple):
    """One run; factor and value are empty where nothing but the seed differs from the configuration."""

    arm: str
    factor: str
    value: str
    seed: int

    @property
    def name(self) -> str:
        parts = [part for part in (self.arm, self.factor, self.value, str(self.seed)) if part]
        return "-".join(parts).replace(" ", "_").replace(",", "").replace("'", "").replace(":", "_")

    @property
    def arguments(self) -> list[str]:
        changed = [FACTORS[self.factor].option, self.value] if self.factor else []
        fixed = ["--seed_everything", str(self.seed), "--config", "benchmarks/evaluate_test.yaml"]
        return [*ARMS[self.arm], *changed, *fixed]


def cells(seeds: int, factor_seeds: int) -> list[Cell]:
    made = [Cell(arm, "", "", seed) for seed in range(seeds) for arm in ARMS]
    for name, factor in FACTORS.items():
        made += [Cell(a, name, x, seed) for x in factor.others for seed in range(factor_seeds) for a in factor.arms]
    return made


def waves(todo: list[Cell]) -> list[list[Cell]]:
    """First the cells whose samples others will find; two that sample the same would do so twice."""
    first = {}
    for cell in todo:
        samples = cell.value if cell.factor in ("start policy", "temperature") else ("weak" in cell.arm)
        first.setdefault((samples, cell.seed), cell)
    ahead = list(first.values())
    return [ahead, todo]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, default=5, help="of the arms")
    parser.add_argument("--factor_seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--runs_folder", type=Path, default=Path("runs/code_dpo"))
    parser.add_argument("--collect", action="store_true", help="run nothing: the table of what is finished")
    arguments = parser.parse_args()
    folder = arguments.output / "cells"
    todo = cells(arguments.seeds, arguments.factor_seeds)
    environment = {"WANDB_RUN_GROUP": "code_dpo", "RUNS_FOLDER": str(arguments.runs_folder)}
    environment["WANDB_MODE"] = os.environ.get("WANDB_MODE", "offline")
    for several in [] if arguments.collect else waves(todo):
        run_all({cell.name: cell.arguments for cell in several}, folder, arguments.processes, environment)
    collect(todo, folder, arguments.output / "code_dpo.csv")


def collect(todo: list[Cell], folder: Path, target: Path) -> None:
    """One row a finished cell."""
    table = [
        {**cell._asdict(), **figures(cell.name, folder)} for cell in todo if (folder / f"{cell.name}.json").exists()
    ]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    print(f"wrote {target}; now: python -m benchmarks.code_dpo_figures {target}")


if __name__ == "__main__":
    main()
