"""Peak memory of DPO at a vocabulary of 152k, against TRL's `DPOTrainer`: the most a process ever held resident.

    python -m benchmarks.memory [--json FILE] [--runs 5] [--quick]

Two optimizer steps of each side in a new process, imports and weights counted; same weights, same batches.
"""

import shutil
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import command, paired, workloads
from benchmarks.dpo_vs_trl import ours, trl
from benchmarks.paired import Timing

WORKLOAD = replace(workloads.LARGE_VOCABULARY, steps=2)


def measure(folder: Path, runs: int) -> dict[str, list[Timing]]:
    timings: dict[str, list[Timing]] = {"ours": [], "trl": [], "trl_precomputed": []}
    for run in range(runs):
        sides = {"ours": partial(ours, folder, WORKLOAD.batch_size, "fp32", "cpu", False)}
        with paired.Sides(*timings) as processes:
            mine = processes.turn(sides)["ours"]
            peers = {
                name: partial(trl, folder, mine.batches, "fp32", "cpu", precompute)
                for name, precompute in (("trl", False), ("trl_precomputed", True))
            }
            theirs = processes.turn(peers)
        if not run:
            for timing in theirs.values():
                paired.check_equal(mine, timing, 1e-3)
        for name, timing in {"ours": mine, **theirs}.items():
            timings[name].append(timing)
    return timings


def main() -> None:
    arguments = command.parse(command.parser(__doc__))
    paired.be_quiet()
    host = paired.machine()
    print(paired.describe(host), flush=True)
    folder = Path(tempfile.mkdtemp())
    try:
        pairs = WORKLOAD.steps * WORKLOAD.batch_size
        timings = measure(workloads.materialize(WORKLOAD, folder / WORKLOAD.name, pairs), arguments.runs)
    finally:
        shutil.rmtree(folder)
    peaks = {name: statistics.median(timing.peak_bytes for timing in several) for name, several in timings.items()}
    figures = {
        "runs": arguments.runs,
        **{f"{name}_peak_bytes": peak for name, peak in peaks.items()},
        "ratio": peaks["ours"] / peaks["trl"],
        "ratio_precomputed": peaks["ours"] / peaks["trl_precomputed"],
    }
    rows = [["vocabulary of 152k, 2 pairs", "peak MiB", "ours to it"]]
    rows += [[name, f"{peak / 2**20:,.0f}", f"{peaks['ours'] / peak:.2f}"] for name, peak in peaks.items()]
    print(paired.table(rows))
    command.write_json(arguments.json, {"machine": host, **figures})


if __name__ == "__main__":
    main()
