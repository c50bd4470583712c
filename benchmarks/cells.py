"""Many `lit-pref fit` runs as a user would start them, side by side, each kept when it is done.

Not a benchmark of its own: `learning_rates` and `code_dpo` say which runs.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FIGURES = ("pass@1", "pair_accuracy", "logps/chosen", "logps/rejected")


def run_all(
    cells: Mapping[str, Sequence[str]], folder: Path, processes: int, environment: Mapping[str, str] | None = None
) -> None:
    """Run `lit-pref fit` with each cell's arguments, unless its summary is in the folder; one thread each."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda cell: _run(*cell, folder, environment or {}), cells.items()))


def _run(name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    kept = folder / f"{name}.json"
    if kept.exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(environment.get("RUNS_FOLDER", scratch))
        command = [sys.executable, "-m", "lit_pref.cli.main", "fit", *arguments]
        command += ["--runs_folder", str(runs), "--run_name", name]
        settings = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"} | environment
        done = subprocess.run(command, env=settings, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        (summary,) = runs.glob(f"*/{name}/summary.json")
        kept.write_text(summary.read_text())
    print(name, json.loads(kept.read_text())["after"]["pass@1"], flush=True)


def figures(name: str, folder: Path) -> dict[str, float]:
    """Each figure before and after, and what the run took."""
    summary = json.loads((folder / f"{name}.json").read_text())
    found = {f"{when}/{figure}": summary[when][figure] for when in ("before", "after") for figure in FIGURES}
    return {**found, "wall_seconds": summary["wall_seconds"]}
