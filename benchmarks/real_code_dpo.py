"""DPO on execution-labelled pairs (after arXiv 2410.18585) of a pretrained model, measured on MBPP and HumanEval.

    python -m benchmarks.real_code_dpo --model FOLDER [--config configs/real/code_dpo_smollm2.yaml] [--mbpp FILE]
        [--arms start rft dpo dpo_budget] [--seeds 0 1 2]

The start, SFT on passing samples (rft), DPO, DPO with a likelihood budget: one set of samples a model, of MBPP's
training and validation problems; a seed draws pairs, adapters and order. Each is measured greedily on MBPP's 500 test
problems and on HumanEval's 164, asked as chats. The commands are a user's: `lit-pref fit` and `lit-pref evaluate`.
A cell is a model, an arm and a seed; its row is added to `real_code_dpo.csv` when it is done, and the same command goes
on where it was interrupted: at a sample, a training step, a cell. `--quick` shows in minutes that all of it runs. Then
`python -m benchmarks.real_code_dpo_figures` writes the table.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cells import add_row, evaluated, fitted, rows
from lit_pref.machine.processors import multiplies_bf16

ARMS: dict[str, Sequence[str]] = {
    "start": ["--trainer.max_steps", "0"],  # the samples are drawn, nothing is trained
    "rft": ["--config", "configs/real/rft.yaml"],
    "dpo": [],
    "dpo_budget": ["--config", "configs/real/budget.yaml"],
}
BENCHMARKS: dict[str, Sequence[str]] = {
    "mbpp": ["--task", "MBPP", "--task.style", "chat"],
    "human_eval": ["--task", "HumanEval", "--task.style", "chat"],
}
MAX_NEW_TOKENS = 512
QUICK = ["--data.train_size", "40", "--data.validation_size", "20", "--trainer.max_epochs", "1"]
QUICK_SIZES = ["--data.samples.each", "4", "--data.samples.sampling.max_new_tokens", "64"]


class Cell(NamedTuple):
    """One row. The start, which is the same for every seed, has seed 0."""

    model: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.arm}-{self.seed}"


def cells(model: str, arms: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The start first, which draws the samples, then all arms of the first seed."""
    trained = [Cell(model, arm, seed) for seed in seeds for arm in arms if arm != "start"]
    return [*([Cell(model, "start", 0)] if "start" in arms else []), *trained]


def run_cell(cell: Cell, arguments: argparse.Namespace) -> dict[str, Any]:
    """The row of a cell, all of whose parts are kept in the runs folder."""
    run = fitted(_fit(cell, arguments), arguments.runs_folder, cell.name)
    row = {**cell._asdict(), **_training(run)}
    for name, task in BENCHMARKS.items():
        options = [*task, *_evaluation(cell, run, arguments)]
        if name == "mbpp" and arguments.mbpp is not None:
            options += ["--task.source", str(arguments.mbpp)]
        row |= {f"{name}/{figure}": value for figure, value in _measured(evaluated(options, run / name)).items()}
    return {**row, "machine": _machine()}


def _fit(cell: Cell, arguments: argparse.Namespace) -> list[str]:
    given = ["--config", str(arguments.config), *ARMS[cell.arm], "--model.policy", arguments.model]
    given += ["--seed_everything", str(cell.seed), *_dtype("--model.dtype", arguments)]
    if arguments.mbpp is not None:
        given += ["--data.task.source", str(arguments.mbpp)]
    return [*given, *(QUICK + QUICK_SIZES if arguments.quick else []), *arguments.more]


def _evaluation(cell: Cell, run: Path, arguments: argparse.Namespace) -> list[str]:
    who = ["--policy", arguments.model] if cell.arm == "start" else ["--checkpoint", str(run / "checkpoints/last.ckpt")]
    tokens = 64 if arguments.quick else MAX_NEW_TOKENS
    drawn = ["--sampling.temperature", "0", "--sampling.max_new_tokens", str(tokens), *_dtype("--dtype", arguments)]
    return [*who, *drawn, "--split", "test", *(["--problems", "10"] if arguments.quick else [])]


def _dtype(option: str, arguments: argparse.Namespace) -> list[str]:
    return [] if arguments.dtype == "float32" else [option, arguments.dtype]


def _training(run: Path) -> dict[str, Any]:
    """What a run's record says: pairs, validation figures before and after, how far chosen fell, seconds."""
    summary = json.loads((run / "summary.json").read_text())
    before, after = summary["before"], summary["after"]
    return {
        "steps": summary["optimizer_steps"],
        "train": json.dumps({what: count for what, count in summary["data_counts"]["train"].items() if count}),
        "validation/pass@1": after["pass@1"],
        "validation/pair_accuracy": after["pair_accuracy"],
        "validation/chosen_fall": before["logps/chosen"] - after["logps/chosen"],
        "validation/rejected_fall": before["logps/rejected"] - after["logps/rejected"],
        "fit_seconds": round(summary["wall_seconds"]),  # the start's hold the sampling
        "train_seconds": round(summary["train_seconds"] or 0),
    }


def _measured(folder: Path) -> dict[str, Any]:
    """pass@1, the share of answers cut off, seconds, and who passed: a 1 or 0 a problem, in order of their numbers."""
    results = json.loads((folder / "results.json").read_text())
    samples = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    passed = {_number(row["task_id"]): row["outcome"] == "passed" for row in samples}
    return {
        "pass@1": results["figures"]["pass@1"]["mean"],
        "truncated": results["truncated"] / results["samples"],
        "no_code": results["outcomes"]["no_code"] / results["samples"],
        "seconds": round(sum(results["seconds"].values())),
        "passed": "p" + "".join("01"[passed[each]] for each in sorted(passed)),  # p: or it would be read as a number
    }


def _number(task_id: object) -> tuple[int, str]:
    digits = str(task_id).rpartition("/")[2]
    return (int(digits) if digits.isdigit() else 0, str(task_id))


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {os.cpu_count()} processors"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", required=True, help="a model folder or a hub id")
    made.add_argument("--config", type=Path, default=Path("configs/real/code_dpo_smollm2.yaml"))
    made.add_argument("--mbpp", type=Path, help="MBPP as released, with all its splits; default: the hub's")
    made.add_argument("--arms", nargs="+", default=[*ARMS], choices=[*ARMS], metavar="ARM", help="default: all")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    made.add_argument("--dtype", default="bfloat16" if multiplies_bf16() else "float32", help="of frozen weights")
    made.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="where the CSV lies")
    made.add_argument("--runs_folder", type=Path, default=Path("runs/real_code_dpo"))
    made.add_argument("--quick", action="store_true", help="a few problems, cut short: not to quote")
    made.add_argument("more", nargs="*", help="after --: further options of every lit-pref fit")
    return made


def main() -> None:
    arguments = parser().parse_args()
    table = arguments.results / "real_code_dpo.csv"
    done = {(row["model"], row["arm"], row["seed"]) for row in rows(table)}
    for cell in cells(Path(arguments.model).name.replace(":", "_"), arguments.arms, arguments.seeds):
        if (cell.model, cell.arm, str(cell.seed)) in done:
            continue
        row = run_cell(cell, arguments)
        add_row(table, row)
        shares = {name: round(100 * row[f"{name}/pass@1"], 1) for name in BENCHMARKS}
        print(f"{cell.name}: {shares}", flush=True)
    print(f"now: python -m benchmarks.real_code_dpo_figures {table}")


if __name__ == "__main__":
    main()
