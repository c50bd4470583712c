"""Seconds from `lit-pref fit` to its first optimizer step, once samples, reference and first figures are cached.

    python -m benchmarks.startup [--json FILE] [--runs 5] [--quick] [--config configs/dpo_budget.yaml]

Runs the real command in an empty working directory with a cache folder of its own: once to fill that, then `--runs`
times. A callback notes the time at Lightning's hooks and stops the run behind its first step, as Ctrl-C would: what
follows (other steps, figures afterwards) is not counted. Figures are medians, each part's by itself, so parts need not
add up; processor time is that of the process and of its children that have ended.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks import command

ROOT = Path(__file__).parents[1]
MARKS = "LIT_PREF_BENCHMARK_MARKS"  # the file that a run's times go to
PARTS = ("imports", "construction", "data", "evaluation before", "reference", "first step")


def now() -> list[float]:
    """Wall and processor seconds."""
    spent = os.times()
    return [time.time(), spent.user + spent.system + spent.children_user + spent.children_system]


class Marks(Callback):
    """When each part of a run's beginning is over; stops the run behind the first optimizer step."""

    # This file is imported where the configuration is parsed: behind the command's own imports.
    imported = now()

    def __init__(self) -> None:
        self.times = {"imports": self.imported}

    @property
    def state_key(self) -> str:
        # First asked for by the Trainer's constructor, which comes last.
        self.times.setdefault("construction", now())
        return super().state_key

    def setup(self, trainer: Trainer, *_, **__) -> None:
        self.times["data"] = now()  # the data module is set up before callbacks are

    def on_fit_start(self, *_) -> None:
        self.times["evaluation before"] = now()  # BeforeAfter stands before this callback

    def on_train_start(self, *_) -> None:
        self.times["reference"] = now()

    def on_train_batch_end(self, trainer: Trainer, *_) -> None:
        if trainer.global_step:
            self.times["first step"] = now()
            Path(os.environ[MARKS]).write_text(json.dumps(self.times))
            raise KeyboardInterrupt


def lit_pref() -> list[str]:
    installed = Path(sys.executable).with_name("lit-pref")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "lit_pref.cli.main"]


def run(config: Path, folder: Path) -> dict[str, list[float]]:
    """Wall and processor seconds since the start at which each part was over."""
    marks = folder / "marks.json"
    marks.unlink(missing_ok=True)
    environment = os.environ | {MARKS: str(marks), "LIT_PREF_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    environment.setdefault("WANDB_MODE", "offline")
    arguments = ["fit", "--config", str(config), "--trainer.callbacks+=benchmarks.startup.Marks"]
    start = time.time()
    done = subprocess.run([*lit_pref(), *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 130 or not marks.exists():
        raise SystemExit(f"the command ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    times = json.loads(marks.read_text())
    return {part: [times[part][0] - start, times[part][1]] for part in PARTS}


def cached(folder: Path) -> set[Path]:
    return {path for path in (folder / "cache").rglob("*") if path.is_file()}


def help_seconds() -> float:
    start = time.perf_counter()
    subprocess.run([*lit_pref(), "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def parts(run: dict[str, list[float]], clock: int) -> dict[str, float]:
    """What each part took by one clock."""
    ends = [run[part][clock] for part in PARTS]
    return {part: end - start for part, start, end in zip(PARTS, [0.0, *ends], ends, strict=False)}


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {part: statistics.median(run[part] for run in runs) for part in PARTS}


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "dpo_budget.yaml")
    arguments = command.parse(parser)
    folder = Path(tempfile.mkdtemp(prefix="lit_pref-startup-"))
    try:
        config = arguments.config.resolve()
        filling = run(config, folder)
        there = cached(folder)
        runs = [run(config, folder) for _ in range(arguments.runs)]
        if cached(folder) != there:
            raise SystemExit(f"not all was found again: {sorted(map(str, cached(folder) - there))}")
    finally:
        shutil.rmtree(folder)
    wall, processor = (medians([parts(run, clock) for run in runs]) for clock in (0, 1))
    last = PARTS[-1]
    figures = {
        "config": config.name,
        "seconds_to_first_step": statistics.median(run[last][0] for run in runs),
        "processor_seconds_to_first_step": statistics.median(run[last][1] for run in runs),
        "help_seconds": statistics.median(help_seconds() for _ in range(max(5, arguments.runs))),
        "breakdown": wall,
        "breakdown_processor": processor,
        "seconds_with_empty_cache": filling[last][0],
        "runs": len(runs),
        "threads": torch.get_num_threads(),
        "machine": f"{command.machine()}, torch {torch.__version__}",
    }
    print(f"lit-pref fit --config {config.name}, median of {len(runs)} runs, {figures['machine']}")
    print(f"{'seconds':<24}{'wall':>8}{'processor':>12}")
    for part in PARTS:
        print(f"{part:<24}{wall[part]:>8.2f}{processor[part]:>12.2f}")
    whole = figures["seconds_to_first_step"], figures["processor_seconds_to_first_step"]
    print(f"{'to the first step':<24}{whole[0]:>8.2f}{whole[1]:>12.2f}")
    print(f"{'with an empty cache':<24}{filling[last][0]:>8.2f}{filling[last][1]:>12.2f}")
    print(f"{'lit-pref --help':<24}{figures['help_seconds']:>8.2f}")
    command.write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
