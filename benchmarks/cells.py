"""Commands as a user would give them, one after another or side by side, each kept when it is done.

Not a benchmark of its own: `learning_rates`, `code_dpo`, `real_code_dpo` and `real_codepmp` say which.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FIGURES = ("pass@1", "pair_accuracy", "logps/chosen", "logps/rejected")


def lit_pref(arguments: Sequence[str], environment: Mapping[str, str] | None = None, log: Path | None = None) -> None:
    """Run `lit-pref` with the arguments; Raises RuntimeError with its last words. log: where its words are added."""
    settings = os.environ | {"WANDB_MODE": "disabled"} | (environment or {})
    with tempfile.TemporaryFile() as scratch:
        command = [sys.executable, "-m", "lit_pref.cli.main", *arguments]
        with scratch if log is None else _added(log, arguments) as output:
            done = subprocess.run(command, env=settings, stdout=output, stderr=subprocess.STDOUT)
            if done.returncode:
                output.seek(0, os.SEEK_END)
                output.seek(max(0, output.tell() - 6000))
                raise RuntimeError(f"lit-pref {' '.join(arguments)} failed:\n{output.read().decode(errors='replace')}")


def _added(log: Path, arguments: Sequence[str]):
    log.parent.mkdir(parents=True, exist_ok=True)
    output = log.open("ab+")
    output.write(f"$ lit-pref {' '.join(arguments)}\n".encode())
    output.flush()
    return output


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
        place = ["--runs_folder", str(runs), "--run_name", name]
        lit_pref(["fit", *arguments, *place], {"OMP_NUM_THREADS": "1"} | dict(environment))
        (summary,) = runs.glob(f"*/{name}/summary.json")
        kept.write_text(summary.read_text())
    print(name, json.loads(kept.read_text())["after"]["pass@1"], flush=True)


def figures(name: str, folder: Path) -> dict[str, float]:
    """Each figure before and after, and what the run took."""
    summary = json.loads((folder / f"{name}.json").read_text())
    found = {f"{when}/{figure}": summary[when][figure] for when in ("before", "after") for figure in FIGURES}
    return {**found, "wall_seconds": summary["wall_seconds"]}


# --- one after another, each gone on with -----------------------------------------------------------------------------


def fitted(arguments: Sequence[str], runs: Path, name: str) -> Path:
    """The folder of the finished run of these arguments: as it is there, gone on with, or made."""
    for folder in runs.glob(f"*/{name}"):
        kept, last = folder / "summary.json", folder / "checkpoints" / "last.ckpt"
        if kept.exists() and json.loads(kept.read_text())["status"] == "finished":
            return folder
        if last.exists():
            arguments = [*arguments, "--ckpt_path", str(last)]
    place = ["--runs_folder", str(runs), "--run_name", name]
    _timed(name, ["fit", *arguments, *place], runs / "logs" / f"{name}.log")
    (folder,) = runs.glob(f"*/{name}")
    return folder


def evaluated(arguments: Sequence[str], folder: Path) -> Path:
    """The folder with results.json of an evaluation with these arguments, likewise."""
    if not (folder / "results.json").exists():
        log = folder.parent / f"{folder.name}.log"
        _timed(f"{folder.parent.name} {folder.name}", ["evaluate", *arguments, "--output", str(folder)], log)
    return folder


def _timed(name: str, arguments: Sequence[str], log: Path) -> None:
    start = time.monotonic()
    lit_pref(arguments, log=log)
    print(f"{name}: {arguments[0]} took {time.monotonic() - start:,.0f} s", flush=True)


def rows(path: Path) -> list[dict[str, str]]:
    """Of a CSV; none where it is not there yet."""
    if not path.exists():
        return []
    csv.field_size_limit(2**20)
    with path.open() as file:
        return list(csv.DictReader(file))


def add_row(path: Path, row: Mapping[str, object]) -> None:
    """At a CSV's end, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = [*rows(path), {name: str(value) for name, value in row.items()}]
    written = path.with_suffix(".csv.new")
    with written.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for each in every for name in each)))
        writer.writeheader()
        writer.writerows(every)
    written.replace(path)
