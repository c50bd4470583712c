"""Time and memory of a whole `fit` on N and on 10 N pairs of one Parquet file.

    python -m benchmarks.scaling [--rows 100000] [--runs 3] [--json FILE] [--quick]

Each run is a process of its own that tokenizes the pairs, scores the reference of all of them and trains one epoch, the
caches empty; imports and the making of file and model are not counted. The model is as small as a model can be, so that
what is seen is the handling of the data; it computes on one thread. Memory is the most that the process has held
resident (`ru_maxrss`), imports included; CPU time is that of all threads; tokenizing is reading the file and writing
the tokens, and found again what a later run takes in its place. `--quick` takes 1,000 rows, once.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import command

# The heavy imports stand in what runs in processes of their own: a process begins with its parent's `ru_maxrss`.

BATCH_SIZE, ROW_GROUP, VOCABULARY = 128, 10_000, 1024
FIGURES = ("seconds", "cpu_seconds", "data_seconds", "data_again_seconds", "peak_bytes")


def make(folder: Path, rows: int) -> None:
    """`model/`, and `pairs-N.parquet` for N and 10 N rows; written a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.workloads import ADDED_TOKENS, Shape, mined_functions, new_tokenizer, save_model

    bodies = [body for _, body in mined_functions()]
    tokenizer = new_tokenizer(bodies[:2000], VOCABULARY - ADDED_TOKENS)
    shape = Shape(VOCABULARY, hidden_size=8, intermediate_size=8, layers=1, heads=1, key_value_heads=1)
    save_model(shape, tokenizer, folder / "model")
    lines = sorted({line for body in bodies for line in body.splitlines(keepends=True) if 20 <= len(line) <= 60})
    schema = pa.schema([(name, pa.string()) for name in ("prompt", "chosen", "rejected")])
    for count in (rows, 10 * rows):
        made = pairs(lines, count)
        with pq.ParquetWriter(folder / f"pairs-{count}.parquet", schema) as writer:
            for start in range(0, count, ROW_GROUP):
                group = [next(made) for _ in range(min(ROW_GROUP, count - start))]
                writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=ROW_GROUP)


def pairs(lines: list[str], count: int) -> Iterator[dict[str, str]]:
    """A line of code to go on from, and two others; the number, as long in all rows, makes each prompt another one."""
    choose = random.Random(0)
    for row in range(count):
        prompt, chosen, rejected = choose.sample(lines, 3)
        yield {"prompt": f"# {row:07}\n{prompt}", "chosen": chosen, "rejected": rejected}


def measure(folder: Path, rows: int) -> dict[str, float]:
    """One fit, from nothing to the end of its epoch."""
    import torch
    from lightning.pytorch import Trainer

    from lit_pref.datamodules import PairsDataModule
    from lit_pref.losses import DPO
    from lit_pref.modules import DPOModule

    def data() -> PairsDataModule:
        return PairsDataModule(str(folder / f"pairs-{rows}.parquet"), batch_size=BATCH_SIZE, seed=0)

    def trainer(**settings: int) -> Trainer:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        return Trainer(
            accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, default_root_dir=folder, **quiet, **settings
        )

    module, timed = DPOModule(str(folder / "model"), DPO(), cache_folder=folder / "reference"), data()
    prepare, prepared = timed.prepare_data, [0.0]
    timed.prepare_data = lambda: prepared.append(_seconds(prepare))  # type: ignore[method-assign]
    torch.manual_seed(0)
    cpu = time.process_time()
    seconds = _seconds(lambda: trainer().fit(module, timed))
    cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    again = data()
    again.trainer = timed.trainer
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "data_seconds": sum(prepared),
        "data_again_seconds": _seconds(again.prepare_data),
        "peak_bytes": peak,
    }


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_own_process(*arguments: object, **environment: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scaling", *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def compared(folder: Path, rows: int, runs: int) -> dict[str, object]:
    sizes = (rows, 10 * rows)
    measured: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for run in range(runs):
        for size in sizes:  # in turn, so that a busy machine meets both
            with tempfile.TemporaryDirectory(dir=folder) as own:
                for name in ("model", f"pairs-{size}.parquet"):
                    (Path(own) / name).symlink_to(folder / name)
                output = in_own_process(
                    "--measure", size, "--folder", own, LIT_PREF_CACHE=f"{own}/cache", OMP_NUM_THREADS="1"
                )
            measured[size].append(json.loads(output.splitlines()[-1]))
            print(f"run {run + 1}, {size:,} pairs: {measured[size][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    small, large = (
        {name: statistics.median(run[name] for run in measured[size]) for name in FIGURES} for size in sizes
    )
    return {
        "rows": rows,
        "rows_10x": 10 * rows,
        **{name: small[name] for name in FIGURES},
        **{f"{name}_10x": large[name] for name in FIGURES},
        "time_ratio": large["seconds"] / small["seconds"],
        "cpu_time_ratio": large["cpu_seconds"] / small["cpu_seconds"],
        "data_time_ratio": large["data_seconds"] / small["data_seconds"],
        "memory_ratio": large["peak_bytes"] / small["peak_bytes"],
        "runs": runs,
        "machine": command.machine(),
    }


def main() -> None:
    parser = command.parser(__doc__, runs=3)
    parser.add_argument("--rows", type=int, help="N; default: 10000; 100000 goes to a million pairs")
    for hidden in ("--measure", "--make"):
        parser.add_argument(hidden, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = command.parse(parser)
    rows = arguments.rows or (1_000 if arguments.quick else 10_000)
    if arguments.make:
        make(arguments.folder, arguments.make)
        return
    if arguments.measure:
        print(json.dumps(measure(arguments.folder, arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        in_own_process("--make", rows, "--folder", folder)
        figures = compared(Path(folder), rows, arguments.runs)
    print(f"One epoch of DPO with its reference, medians of {arguments.runs} runs, {figures['machine']}")
    print(f"{'pairs':>12}{'fit':>12}{'CPU time':>12}{'tokenizing':>12}{'found again':>12}{'peak memory':>14}")
    for suffix in ("", "_10x"):
        seconds = "".join(f"{figures[name + suffix]:>10,.1f} s" for name in FIGURES[:4])
        print(f"{figures['rows' + suffix]:>12,}{seconds}{figures['peak_bytes' + suffix] / 2**20:>10,.0f} MiB")
    print(
        f"{'ratio':>12}{figures['time_ratio']:>12.2f}{figures['cpu_time_ratio']:>12.2f}{figures['data_time_ratio']:>12.2f}{'':>12}"
        f"{figures['memory_ratio']:>14.3f}"
    )
    command.write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
